"""The only place that speaks SQL: events, jobs, failures, the quarantine and replays."""
