"""The search for maps of features, structure, tail and bandwidth, on held-out points.

It goes in rounds, so that what is poor costs little. All settings are fitted outside of
the first fold and looked at there. Those not far behind the best are fitted outside of
each fold, best first, and run at few points of all folds. Those that still are not far
behind run at all points.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from skhdkde._density import (
    Choice,
    MixtureSpec,
    NeighborhoodSpec,
    PooledSpec,
    Structure,
    too_many_matrices,
)
from skhdkde._selection.cross_validation import N_FOLDS, Trial
from skhdkde._selection.curve import CUBIC, BandwidthCurve
from skhdkde._selection.search_result import BandwidthSearch, Candidate
from skhdkde._selection.stacking import stack
from skhdkde._utils.arrays import weighted_mean

# Bandwidths of the pilot, and of the pass over all queries around the best of them.
N_COARSE = 16
N_FINE = 7
FINE_STEP = 0.07
MAX_PASSES = 60
# Difference in log h below which a bandwidth counts as tried.
TRIED_SPACING = 1e-3
# Components of a diagonal mixture: their least size, and most of them.
DIAGONAL_LADDER = ((100, 25), (40, 50), (16, 100))
FULL_LADDER = (1, 2, 4, 8)
POOLED_LADDER = (2, 4, 8, 16)
# Points of a component with a full covariance, per feature; of one whose covariance is
# shrunk to a common one; and cost of fitting one.
POINTS_PER_FEATURE, POINTS_PER_POOLED = 2, 15
LARGEST_FULL = 1e9
# Number of held-out points from which on few of them are looked at first, and how many
# standard errors behind the best one is not looked at again.
FEWEST_SCREENED, SURELY = 1024, 3.0
# For a stack, settings of each group that run on all folds, and those with a kernel that
# run at all points; for the best of all, those with a kernel that run at all points.
MOST_OF_GROUP, N_FINALISTS, MOST_FINALISTS = 2, 2, 12
# Neighbours in a neighbourhood, at least and per feature; shares of the mean covariance,
# of which the others are compared for the best number of neighbours.
NEIGHBOR_LADDER = ((10, 1), (20, 2), (40, 4))
NEIGHBOR_SHRINKAGES = (0.1, 0.3, 0.6)


class Setting(NamedTuple):
    """Maps of features and a structure, which are compared with others."""

    maps: Any  # what :func:`~skhdkde._maps.fit_maps` fits; None for none
    structure: Structure

    @property
    def group(self):
        """What a stack has the best one of."""
        return self.maps, self.structure.covariance_type == "neighborhood"

    @property
    def family(self):
        """What settings have in common that differ in the number of components alone."""
        mixture = self.structure.mixture
        if isinstance(mixture, MixtureSpec) and mixture.n_components > 1:
            return self.maps, "mixture", mixture.covariance_type
        if isinstance(mixture, PooledSpec):
            return self.maps, "mixture", "pooled"
        return self.maps, self.structure

    def refined(self):
        """Return settings to be compared with this one where it leads."""
        maps, structure = self
        mixture, neighborhood = structure.mixture, structure.neighborhood
        if isinstance(mixture, MixtureSpec) and mixture.finer() is not None:
            return [Setting(maps, replace(structure, mixture=mixture.finer()))]
        if neighborhood is None:
            return []
        others = [
            replace(neighborhood, shrinkage=share)
            for share in NEIGHBOR_SHRINKAGES
            if share != neighborhood.shrinkage
        ]
        return [Setting(maps, replace(structure, neighborhood=o)) for o in others]

    def __str__(self):
        structure = self.structure
        names = [structure.covariance_type]
        names += [repr(structure.mixture)] if structure.mixture is not None else []
        if structure.neighborhood is not None:
            spec = structure.neighborhood
            names += [f"{spec.n_neighbors} neighbours, shrinkage {spec.shrinkage}"]
        names += [str(self.maps)] if self.maps is not None else []
        return ", ".join(names)


class KernelCurve(BandwidthCurve):
    """Mean held-out log density of one kernel against the bandwidth, whitened units.

    Parameters
    ----------
    kernel : Kernel
    center : float
        Where the maximum is, roughly.
    largest : float
        The largest bandwidth that may be tried.
    """

    def __init__(self, kernel, center, largest):
        super().__init__()
        self.kernel, self.center, self.largest = kernel, center, largest
        self.at_best = np.empty(0)  # log densities of the queries at the best bandwidth

    def add(self, bandwidths, log_density, weights):
        """Add bandwidths and the log densities there."""
        highest = self.mean.max(initial=-np.inf)
        super().add(bandwidths, log_density, weights)
        if not len(self.at_best) or self.mean.max() > highest:
            self.at_best = log_density[:, bandwidths == self.bandwidths[self.best]][:, 0]

    def again(self):
        """Return a new curve, centred at the peak of this one."""
        return KernelCurve(self.kernel, self.peak(), self.largest)

    def wanted(self):
        """Return bandwidths to try next; none if the best is between others."""
        center = self.center
        if len(self.bandwidths):
            center = float(self.bandwidths[self.best])
            if not self.best_is_at_end or center >= self.largest:
                return np.empty(0)
        steps = np.arange(N_FINE) - N_FINE // 2
        bandwidths = center * np.exp(FINE_STEP * steps)
        if bandwidths[-1] > self.largest:  # as many of them, up to the end
            bandwidths *= self.largest / bandwidths[-1]
            bandwidths[-1] = self.largest
        return self.untried(bandwidths, TRIED_SPACING)

    def peak(self):
        """Return the bandwidth of the largest mean."""
        if self.best_is_at_end:
            return float(self.bandwidths[self.best])
        return self.maximum(CUBIC)


def search_structures(folds, settings, kernels, plan, stacked=False):
    """Compare settings, kernels and bandwidths on held-out points.

    Parameters
    ----------
    folds : Folds or BlockFolds
    settings : list of Setting
    kernels : list of Kernel
        Of which every setting takes the best.
    plan : SearchPlan
    stacked : bool
        Whether to mix the best of each group, or to choose the best of all.

    Returns
    -------
    choices : list of Choice
        The heaviest first.
    search : BandwidthSearch
    """
    race = Race(folds, kernels, plan, grouped=stacked)
    alone = len(settings) == 1 and not settings[0].refined()
    if alone or folds.first() is None:  # a look would tell nothing
        for setting in settings:
            race.enter(setting)
    else:
        race.look_at(settings)
        race.run()
    finalists, records = race.finish()
    shares, stacked_log_density = {finalists[0]: 1.0}, None
    if stacked:
        shares, stacked_log_density = stack(finalists, folds.query_weights)
    curve = finalists[0].curve
    search = BandwidthSearch(
        bandwidth=curve.peak(),
        bandwidths=curve.bandwidths,
        mean_log_density=curve.mean,
        standard_error=curve.standard_error,
        n_out_of_reach=np.zeros(len(curve.bandwidths), dtype=int),
        n_queries=len(folds.query_weights),
        n_copies=folds.n_duplicates,
        candidates=tuple(
            replace(record, weight=shares.get(entrant, 0.0))
            for entrant, record in records.items()
        ),
        stacked_log_density=stacked_log_density,
    )
    chosen = [entrant.choice(weight) for entrant, weight in shares.items()]
    return sorted(chosen, key=lambda choice: -choice.weight), search


class Entrant:
    """A setting and a kernel in a race.

    Attributes
    ----------
    setting : Setting
    held_out : BaseHeldOut or None
        None once it is out of the race.
    curve : KernelCurve
    centers : list of float
        Where the first fold has the best bandwidth of each kernel, roughly.
    is_out : bool
        Whether it is out of the race.
    """

    def __init__(self, setting, held_out, curve, centers=()):
        self.setting, self.held_out, self.curve = setting, held_out, curve
        self.centers, self.is_out = list(centers), False

    @property
    def mean(self):
        """The largest mean log density, in nats."""
        return self.curve.mean[self.curve.best]

    @property
    def standard_error(self):
        """Standard error of the mean log density, in nats."""
        return self.curve.standard_error[self.curve.best]

    @property
    def log_density(self):
        """Log densities of the queries, at the best bandwidth that was tried."""
        return self.curve.at_best

    def behind(self, other, weights):
        """Return mean and standard error of what it lacks to another, in nats."""
        return _lack(other.log_density, self.log_density, weights)

    def is_behind(self, other, weights):
        """Return whether it is surely behind another."""
        lack, error = self.behind(other, weights)
        return not lack <= SURELY * error  # NaN for -inf too

    def choice(self, weight):
        """Return it as chosen."""
        maps, structure = self.setting
        return Choice(maps, structure, self.curve.kernel, self.curve.peak(), weight)

    def candidate(self, mean_log_density, standard_error):
        """Return the record of it, at its best bandwidth."""
        return _candidate(self.setting, self.curve, mean_log_density, standard_error)


def _lack(best, own, weights):
    """Return mean and standard error of a difference of log densities."""
    with np.errstate(invalid="ignore"):  # NaN where both are -inf
        mean, error = weighted_mean((best - own)[:, None], weights)
    return float(mean[0]), float(error[0])


def _candidate(setting, curve, mean_log_density, standard_error):
    structure = setting.structure
    return Candidate(
        covariance_type=structure.covariance_type,
        mixture=structure.mixture,
        preserve_variance=structure.preserve_variance,
        kernel=curve.kernel.name,
        degrees_of_freedom=curve.kernel.degrees_of_freedom,
        bandwidth=curve.peak(),
        mean_log_density=float(mean_log_density),
        standard_error=float(standard_error),
        feature_maps=setting.maps,
        neighborhood=structure.neighborhood,
    )


class Race:
    """Settings and kernels, of which those far behind are not looked at again.

    What is behind the first of its group by more than ``SURELY`` standard errors of the
    difference, query by query, is out; it has its difference on record. There is one
    group, unless they are to be mixed.

    Attributes
    ----------
    looks, entrants : list of Entrant
        What was seen on the first fold, with the best kernel for each setting, and on
        all folds, for each setting and kernel.
    """

    def __init__(self, folds, kernels, plan, grouped):
        self.folds, self.kernels, self.plan = folds, kernels, plan
        self.grouped = grouped
        self.looks, self.entrants = [], []
        self.places, self.weights = None, folds.query_weights  # None for all of them
        if len(self.weights) >= FEWEST_SCREENED:
            self.places, self.weights = folds.screened()

    def _group(self, setting):
        return setting.group if self.grouped else None

    def look_at(self, settings):
        """Look at all settings on the first fold."""
        families: dict[Any, list[Entrant]] = {}
        for setting in settings:
            family = families.setdefault(setting.family, [])
            if self.plan.time_is_up and self.looks:
                self.plan.skip(setting)
            elif self._is_past_its_best(family):
                self.plan.drop(2)  # more components would be worse still
            else:
                family.append(self._look(setting))
        refined = [s for e in self.leaders(self.looks) for s in e.setting.refined()]
        self.plan.extend(2 * len(refined))
        for setting in refined:
            if self.plan.time_is_up:
                self.plan.skip(setting)
            else:
                self._look(setting)

    def leaders(self, entrants):
        """Return the one with the largest mean of each group."""
        best: dict[Any, Entrant] = {}
        for entrant in entrants:
            group = self._group(entrant.setting)
            if group not in best or entrant.mean > best[group].mean:
                best[group] = entrant
        return list(best.values())

    def _is_past_its_best(self, family):
        """Return whether the last of a family is surely behind the one before.

        Not so on few points, where fits cost little: with fewer components than there are
        clusters the mean may go down before it goes up.
        """
        if self.places is None or len(family) < 2:
            return False
        return family[-1].is_behind(family[-2], self._look_weights())

    def _look_weights(self):
        """Return weights of the queries of a look."""
        n_queries = len(self.folds.queries[0] if self.places is None else self.places[0])
        return self.weights[:n_queries]

    def _look(self, setting):
        """Fit a setting outside of the first fold, and let go of what is far behind."""
        self.plan.begin(setting, "1 fold")
        folds = self.folds.under(setting.maps).first()
        held_out = folds.held_out(setting.structure)
        curves = _pilot(held_out, self.kernels)
        trials = [Trial(curve.kernel, curve.center) for curve in curves]
        places = None if self.places is None else self.places[:1]
        log_density, weights = held_out.log_density(trials, places), self._look_weights()
        for k, curve in enumerate(curves):
            curve.add(np.array([curve.center]), log_density[:, [k]], weights)
        best = max(curves, key=lambda curve: curve.mean[0])
        look = Entrant(setting, held_out, best, [curve.center for curve in curves])
        self.looks.append(look)
        self._send_out(self.looks, weights)
        self.plan.done(setting, look.mean)
        return look

    def _send_out(self, entrants, weights):
        """Let go of what is needed to go on with those that are far behind."""
        first = {self._group(e.setting): e for e in self.leaders(entrants)}
        for entrant in entrants:
            ahead = first[self._group(entrant.setting)]
            if entrant is not ahead and entrant.is_behind(ahead, weights):
                entrant.held_out, entrant.is_out = None, True

    def run(self):
        """Run those that are not far behind on all folds, best first."""
        self._send_out(self.looks, self._look_weights())
        looks = sorted(self.looks, key=lambda e: -e.mean)
        waiting, far = ([e for e in looks if e.is_out is out] for out in (False, True))
        n_run: dict[Any, int] = {}
        for look in waiting:
            group = self._group(look.setting)
            n_run[group] = n_run.get(group, 0) + 1
            if self.grouped and n_run[group] > MOST_OF_GROUP:
                look.is_out = True
                self.plan.drop(1)
            else:
                self._run_or_skip(look)
        for look in far:
            if self._may_catch_up(look):
                self._run_or_skip(look)
            else:
                self.plan.drop(1)

    def _run_or_skip(self, look):
        """Run a setting on all folds if there is time; what it has is not kept."""
        look.is_out = self.plan.time_is_up and bool(self.entrants)
        if look.is_out:
            self.plan.skip(look.setting)
        else:
            self.enter(look.setting, look)
        look.held_out = None

    def _may_catch_up(self, look):
        """Return whether rare rows, which the first fold has none of, may let it lead.

        On those the first of its group may be as poor as on no row of the first fold.
        What it would gain if they were like the poorest there is compared with what the
        other lacks.
        """
        weights, group = self._look_weights(), self._group(look.setting)
        own = [e for e in self.entrants if self._group(e.setting) == group]
        if not own:  # there was no time
            return False
        first = max(own, key=lambda e: e.mean)
        before = next(e for e in self.looks if e.setting == first.setting)
        lack, _ = look.behind(before, weights)
        poorest = first.log_density[: len(weights)].min()
        rare = np.maximum(poorest - first.log_density, 0.0)
        gain = np.average(rare, weights=self.weights)
        return bool(lack < gain)

    def enter(self, setting, look=None):
        """Let the kernels of a setting run on all folds, after a look or without."""
        self.plan.begin(setting, "all folds")
        folds = self.folds.under(setting.maps)
        if look is None:
            held_out = folds.held_out(setting.structure)
            curves = _pilot(held_out, self.kernels)
        else:
            held_out = look.held_out
            if len(folds.queries) > 1 or held_out is None:
                held_out = folds.held_out(setting.structure, held_out)
            largest = [held_out.largest_bandwidth(kernel) for kernel in self.kernels]
            known = zip(self.kernels, look.centers, largest, strict=True)
            curves = [KernelCurve(k, min(h, most), most) for k, h, most in known]
        _run(held_out, curves, self.weights, self.places)
        self.entrants += [Entrant(setting, held_out, curve) for curve in curves]
        if self.places is not None:
            self._send_out(self.entrants, self.weights)
        self.plan.done(setting, max(curve.mean.max() for curve in curves))

    def finish(self):
        """Return each setting that is left with its best kernel, and all records.

        Returns
        -------
        finalists : list of Entrant
            The best first.
        records : dict of Entrant to Candidate
        """
        ahead = {e: self._ahead(e) for e in self.entrants}
        lacks = {e: e.behind(ahead[e], self.weights) for e in self.entrants}
        left = self._at_all_points()
        records = {}
        for entrant in self.entrants:
            mean, error = entrant.mean, entrant.standard_error
            if entrant not in left:
                lack, own_error = lacks[entrant]
                mean, error = ahead[entrant].mean - lack, np.hypot(error, own_error)
            records[entrant] = entrant.candidate(mean, error)
        for look in self.looks:
            if look.is_out:
                records[look] = self._record_of_look(look)
        best: dict[int, Entrant] = {}
        for entrant in sorted(left, key=lambda e: -e.mean):
            best.setdefault(id(entrant.held_out), entrant)
        return list(best.values()), records

    def _ahead(self, entrant):
        """Return the first of the group of an entrant."""
        return self._first(self.entrants, self._group(entrant.setting))

    def _first(self, entrants, group):
        """Return the one with the largest mean of a group."""
        return self.leaders(e for e in entrants if self._group(e.setting) == group)[0]

    def _at_all_points(self):
        """Run those that are left at all points, and return them."""
        left = [entrant for entrant in self.entrants if not entrant.is_out]
        if self.places is None:
            return left
        left = self._finalists(left)
        for held_out in {id(e.held_out): e.held_out for e in left}.values():
            own = [entrant for entrant in left if entrant.held_out is held_out]
            for entrant in own:
                entrant.curve = entrant.curve.again()
            _run(held_out, [e.curve for e in own], self.folds.query_weights)
        return left

    def _finalists(self, entrants):
        """Return those of each group that run at all points."""
        most = N_FINALISTS if self.grouped else MOST_FINALISTS
        groups: dict[Any, list[Entrant]] = {}
        for entrant in sorted(entrants, key=lambda e: -e.mean):
            groups.setdefault(self._group(entrant.setting), []).append(entrant)
        return [e for group in groups.values() for e in group[:most]]

    def _record_of_look(self, look):
        """Return the record of a setting that was seen on the first fold alone.

        Its mean is that of the first of its group that has run, less what it lacked; if
        there was no time for any of the group, of the first of all that have run.
        """
        settings = [entrant.setting for entrant in self.entrants]
        run = [other for other in self.looks if other.setting in settings]
        group = self._group(look.setting)
        own = [other for other in run if self._group(other.setting) == group]
        first = max(own or run, key=lambda e: e.mean)
        lack, error = look.behind(first, self._look_weights())
        final = [e for e in self.entrants if e.setting == first.setting]
        ahead = max(final, key=lambda e: e.mean)
        return look.candidate(ahead.mean - lack, np.hypot(error, ahead.standard_error))


def _run(held_out, curves, weights, places=None):
    """Complete the curve of each kernel for one structure, at queries of each fold."""
    for _ in range(MAX_PASSES):
        wanted = [(curve, curve.wanted()) for curve in curves]
        trials = [
            Trial(c.kernel, float(h)) for c, bandwidths in wanted for h in bandwidths
        ]
        if not trials:
            break
        log_density, start = held_out.log_density(trials, places), 0
        for curve, bandwidths in wanted:
            columns = slice(start, start + len(bandwidths))
            curve.add(bandwidths, log_density[:, columns], weights)
            start = columns.stop


def _pilot(held_out, kernels):
    """Return a curve for each kernel, centred where a few queries have it highest.

    Those of least and of most degrees of freedom are tried; the logarithm of the best
    bandwidth is about linear in ``1 / nu`` between.
    """
    freedom = [kernel.degrees_of_freedom for kernel in kernels]
    tried = sorted({int(np.argmin(freedom)), int(np.argmax(freedom))})
    ranges = [held_out.bandwidth_range(kernels[k]) for k in tried]
    grids = [np.geomspace(low, high, N_COARSE) for low, high in ranges]
    pairs = zip(tried, grids, strict=True)
    trials = [Trial(kernels[k], h) for k, grid in pairs for h in grid]
    means = held_out.pilot(trials).mean(axis=0).reshape(len(tried), N_COARSE)
    best = [g[np.argmax(m)] for g, m in zip(grids, means, strict=True)]
    heaviness = [1.0 / nu for nu in freedom]
    order = np.argsort([heaviness[k] for k in tried])
    known = np.array([heaviness[k] for k in tried])[order], np.log(best)[order]
    centers = np.exp(np.interp(heaviness, *known))
    return [
        KernelCurve(kernel, float(center), held_out.largest_bandwidth(kernel))
        for kernel, center in zip(kernels, centers, strict=True)
    ]


def mixture_ladder(n_points, n_features):
    """Return mixtures of full, pooled or diagonal components, as the data allow."""
    n_fitted = max(int(n_points * (1.0 - 1.0 / N_FOLDS)), 1)
    dear = n_fitted * n_features**2 > LARGEST_FULL
    ladder: list[MixtureSpec | PooledSpec] = [
        MixtureSpec("full", k)
        for k in FULL_LADDER
        if n_fitted >= POINTS_PER_FEATURE * k * n_features and not dear
    ]
    if n_features > 1 and not dear:
        ladder += [
            PooledSpec(k) for k in POOLED_LADDER if n_fitted >= POINTS_PER_POOLED * k
        ]
    counts = {min(n_fitted // size, most) for size, most in DIAGONAL_LADDER}
    ladder += [MixtureSpec("diag", k) for k in sorted(counts) if k > 1]
    return ladder or [MixtureSpec("diag", 1)]


def neighborhood_ladder(n_points, n_features):
    """Return neighbourhoods that are compared."""
    n_fitted = max(int(n_points * (1.0 - 1.0 / N_FOLDS)), 2)
    wanted = [max(fewest, each * n_features) for fewest, each in NEIGHBOR_LADDER]
    sizes = sorted({min(k, n_fitted - 1) for k in wanted})
    return [NeighborhoodSpec(k, NEIGHBOR_SHRINKAGES[1]) for k in sizes]


def expand(structure, n_points, n_features, neighborhoods=True):
    """Return the structures that ``structure`` stands for.

    Those of "stack" are without neighbourhoods unless these are wanted and their
    matrices not too many.
    """
    options = [structure]
    if structure.covariance_type in ("auto", "stack"):
        preserved = replace(structure, preserve_variance=True)
        types = ["spherical", "diag", "full", "local"]
        if structure.covariance_type == "stack" and neighborhoods:
            if not too_many_matrices(n_points, n_features):
                types.append("neighborhood")
        options = [replace(preserved, covariance_type=name) for name in types]
    found = []
    for option in options:
        if option.covariance_type == "local" and option.mixture is None:
            ladder = mixture_ladder(n_points, n_features)
            found += [replace(option, mixture=mixture) for mixture in ladder]
        elif option.covariance_type == "neighborhood" and option.neighborhood is None:
            of_ladder = neighborhood_ladder(n_points, n_features)
            found += [replace(option, neighborhood=spec) for spec in of_ladder]
        else:
            found.append(option)
    return found
