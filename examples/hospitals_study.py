"""A study: four hospitals train logistic regression together.

shoal plan hospitals_study.py
shoal simulate hospitals_study.py
python hospitals_study.py
"""

import shoal

train, held_out = shoal.hospitals().split_examples(0.34, seed=0)
scale = shoal.standardizer(train)

population = scale.apply(train)
test = scale.apply(held_out)
every = 10
plan = shoal.Plan(
    shoal.FedAvg(
        shoal.models.logistic(features=13),
        steps=5,
        batch_size="all",
        client_optimizer=shoal.sgd(0.1),
    ),
    rounds=50,
)

if __name__ == "__main__":
    result = shoal.simulate(plan, population, test=test, every=every)
    print(result)
    measured = result.evaluate(test)
    for hospital in measured.names:
        print(f"{hospital:<14} {measured.of(hospital)['accuracy']:.3f}")
