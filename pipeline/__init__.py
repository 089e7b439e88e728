"""The engine: schemas, keys, store, plan and runner. It knows nothing of faces."""

import os

# ONNX Runtime (1.29 and later) sends usage data from the moment it is imported, unless this is set
# before. Here, so that it holds for every module, plug-in, worker and child process; who sets it to
# 0 has chosen.
os.environ["ORT_DISABLE_TELEMETRY"] = os.environ.get("ORT_DISABLE_TELEMETRY") or "1"
