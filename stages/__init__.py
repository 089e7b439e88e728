"""The biometrics: one file a stage, in the order data flows. Stages reach the engine through `pipeline` only."""
