"""What is measured, one receiver per file."""
