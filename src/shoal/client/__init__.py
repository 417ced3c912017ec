"""The agent at a site: who it is, its way to the server, its journal, and the work it does there."""
