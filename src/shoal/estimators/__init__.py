"""Federated estimators with the interface of scikit-learn."""

from shoal.estimators.scaler import FederatedStandardScaler as FederatedStandardScaler
from shoal.estimators.supervised import FederatedClassifier as FederatedClassifier
from shoal.estimators.supervised import FederatedRegressor as FederatedRegressor
