"""YAML → a validated `Config`: what it extends, its overrides and benchmarks, and what it was asked for by."""
