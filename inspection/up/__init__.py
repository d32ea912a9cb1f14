"""Starts and supervises the servers of one state folder: Label Studio, MLflow, Prefect, the flows' process, the hub."""
