"""The server: one web application over the coordinator of a federation."""
