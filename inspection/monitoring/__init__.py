"""Watching lines and models in the field: estimates from audited parts, drift, silent devices, open ledgers."""
