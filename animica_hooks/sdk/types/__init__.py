"""What the APIs take and answer: TypedDicts for requests and plain answers, Structs for typed."""
