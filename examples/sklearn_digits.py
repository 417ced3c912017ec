"""scikit-learn's digits over twelve clients, each with a few of the ten classes: SGDClassifier, then naive Bayes."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB

import shoal

CLIENTS, DIGITS = 12, tuple(range(10))


def clients() -> shoal.Population:
    """1,797 pictures of 8 x 8; sorted by label and dealt out in runs, so that a client sees one or two digits."""
    x, y = load_digits(return_X_y=True)
    order = np.argsort(y, kind="stable")
    owners = np.arange(len(y)) * CLIENTS // len(y)
    return shoal.Population.from_arrays(x[order] / 16, y[order], groups=owners)


if __name__ == "__main__":
    train, test = clients().split_examples(0.25, seed=0)
    print(train)
    print("digits of each client:", [len(set(train[name].rows("y").tolist())) for name in train])

    linear = shoal.models.SklearnModel(
        SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.1), features=64, classes=DIGITS
    )
    averaged = shoal.simulate(shoal.Plan(shoal.FedAvg(linear), rounds=20), train, test=test, every=5)
    print(f"SGDClassifier, 20 rounds: accuracy {averaged.evaluate(test).pooled['accuracy']:.3f}")

    bayes = shoal.models.SklearnModel(GaussianNB(var_smoothing=1e-3), features=64, classes=DIGITS)
    counted = shoal.simulate(shoal.Plan(shoal.FedAvg(bayes), rounds=1), train)
    print(f"GaussianNB, one round of counts: accuracy {counted.evaluate(test).pooled['accuracy']:.3f}")

    pooled = GaussianNB(var_smoothing=1e-3).fit(train.columns["x"], train.columns["y"])
    print(f"GaussianNB, all rows in one place: accuracy {pooled.score(test.columns['x'], test.columns['y']):.3f}")
