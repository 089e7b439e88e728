"""Running a plan, in this process or on dask.distributed: which shard next, computing it, what fails and what it takes."""
