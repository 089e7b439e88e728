"""The biometrics, one room a concern. Stages reach the engine through `pipeline` only."""
