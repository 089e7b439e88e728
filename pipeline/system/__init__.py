"""The operating system as the engine needs it: files that last, processes, signals, memory."""
