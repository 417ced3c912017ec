"""What leaves a site with a result, in words."""

from __future__ import annotations

from shoal.plan import Plan


def contents(plan: Plan) -> str:
    """What a turn's payload contains, in words for the ledger.

    >>> from shoal import Clip, FedAvg, mean, models
    >>> contents(Plan(FedAvg(models.logistic(13), aggregation=mean(Clip(1.0))), rounds=1))
    'what the turn changed in 14 numbers (float32) through Clip(norm=1.0), for PlainSum() >> Mean(); a weight, sums of metrics'
    """
    algorithm = plan.algorithm
    aggregation, layout = algorithm.aggregation, algorithm.layout
    steps = " >> ".join(map(str, aggregation.steps))
    through = f"through {steps}" if steps else "as it is"
    beside = "nothing beside it" if aggregation.private else "a weight, sums of metrics"
    return (
        f"what the turn changed in {layout.size:,} numbers ({layout.dtype}) {through}, for "
        f"{aggregation.meeting} >> {aggregation.finish}; {beside}"
    )
