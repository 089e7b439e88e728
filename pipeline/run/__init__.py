"""Running a plan, in this process or on dask.distributed: order, memory, failures."""
