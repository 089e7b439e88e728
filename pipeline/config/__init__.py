"""YAML → a validated `Config`: what it extends, its overrides, its benchmarks, its origin."""
