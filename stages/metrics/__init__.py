"""Error rates, identification rates and their uncertainty: functions on NumPy arrays."""
