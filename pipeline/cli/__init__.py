"""The command: where it begins and ends, the engine's verbs, and how they print."""
