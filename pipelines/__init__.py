"""Thin Prefect flows, one file per stage of the loop; ids and paths travel, never tensors."""
