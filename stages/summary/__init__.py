"""What a report shows, derived once from a finished run as plain data; nothing is formatted."""
