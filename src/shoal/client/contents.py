"""What leaves a site with a result, in words."""

from __future__ import annotations

from shoal.plan import Plan


def contents(plan: Plan) -> str:
    """What a turn's payload contains, in words for the ledger.

    >>> from shoal import Clip, FedAvg, Mean, PlainSum, models
    >>> contents(Plan(FedAvg(models.logistic(13), aggregation=Clip(1.0) >> PlainSum() >> Mean()), rounds=1))
    '14 numbers (float32) for Clip(norm=1.0) >> PlainSum() >> Mean(), a weight, sums of metrics'
    """
    aggregation = plan.algorithm.aggregation
    layout = aggregation.sent(plan.algorithm.layout)
    beside = "nothing beside them" if aggregation.private else "a weight, sums of metrics"
    if aggregation.threshold:
        hidden = f"masked: {layout.size:,} integers for {aggregation}, {beside}"
        return f"{hidden}; all of it shows only in the sum of {aggregation.threshold} sites or more"
    return f"{layout.size:,} numbers ({layout.dtype}) for {aggregation}, {beside}"
