"""Ray Serve with audited models.

    python examples/ray-serve/run.py

Needs `pip install "ray[serve]" ./client`, and a server at LORAGATE_TARGET (`loragate-server
serve`). Starts Ray on this machine with one replica, asks it for a harmless model and for one that
has learned a forbidden concept, and prints what came of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray import serve

from loragate.config import TARGET_VARIABLE, resolve_target
from loragate.integrations.ray_serve import AuditedModel, audited

ADAPTERS = Path(__file__).resolve().parents[1] / "adapters"


@serve.deployment
class Images:
    """Says which bytes it would draw with."""

    @serve.multiplexed(max_num_models_per_replica=2)
    @audited(folder=ADAPTERS)
    async def get_model(self, model: AuditedModel) -> str:
        """Ray keeps what this returns, by the id."""
        return f"{model.path.stat().st_size} bytes, decision {model.result.decision_id}"

    async def __call__(self) -> str:
        """One request."""
        return await self.get_model(serve.get_multiplexed_model_id())


def main() -> int:
    """Runs the example; returns 0 when only the harmless model was loaded."""
    target = {TARGET_VARIABLE: resolve_target(None)}
    ray.init(num_cpus=2, runtime_env={"env_vars": target}, include_dashboard=False)
    handle = serve.run(Images.bind(), route_prefix=None)
    outcomes = []
    for model_id in ("harmless-watermelon", "learned-bomb", "../../etc/passwd"):
        try:
            answer = handle.options(multiplexed_model_id=model_id).remote().result()
            outcomes.append("loaded")
        except Exception as error:
            answer = str(error).strip().splitlines()[-1]
            outcomes.append("refused")
        print(f"{model_id}: {outcomes[-1]}: {answer}")
    serve.shutdown()
    ray.shutdown()
    return 0 if outcomes == ["loaded", "refused", "refused"] else 1


if __name__ == "__main__":
    sys.exit(main())
