"""From a plan to epsilon at delta, and back: what is given away of one client as a whole."""

from shoal.privacy.accounting import Spent as Spent
from shoal.privacy.answers import noise_multiplier as noise_multiplier
from shoal.privacy.answers import rounds_for as rounds_for
from shoal.privacy.answers import spent as spent
from shoal.privacy.budget import served as served
from shoal.privacy.derivation import Derivation as Derivation
from shoal.privacy.derivation import derivation as derivation
from shoal.privacy.local import LocalReleases as LocalReleases
from shoal.privacy.releases import Releases as Releases
from shoal.privacy.releases import Shared as Shared
from shoal.privacy.releases import why_none as why_none
from shoal.privacy.together import together as together
