"""The ASGI apps that are measured, one per file."""
