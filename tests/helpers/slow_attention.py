"""Attention as the papers write it: loops over i and j in float64, nothing shared with the code under test."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Document:
    """The document that query and key share: index of its first token, and its number of real tokens."""

    first: int
    n: int


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def attention(query, key, value, score, temperature, sees, real, segments, count="visible", normalize=softmax):
    """One row. Arrays: query and key (L, D), value (L, E), real (L,) bool, segments (L,).

    score(q, k, i, j, document) is similarity plus bias; temperature(n) is τ; sees(i, j, document) is the method's own
    visibility; count says whether n is the number of keys or of the document's tokens; normalize(scores) are the
    weights of the keys that a query sees. Returns (L, E); rows of queries that see nothing are 0.
    """
    length = len(query)
    out = np.zeros((length, value.shape[1]))
    for i in range(length):
        mine = [j for j in range(length) if segments[i] == segments[j]]
        document = Document(mine[0], sum(bool(real[j]) for j in mine))
        keys = [j for j in mine if real[j] and sees(i, j, document)]
        if not keys:
            continue
        tau = temperature(len(keys) if count == "visible" else document.n)
        scores = np.array([tau * score(query[i], key[j], i, j, document) for j in keys])
        for weight, j in zip(normalize(scores), keys, strict=True):
            out[i] += weight * value[j]
    return out


# ---- normalizer ----


def sink_softmax(logit):
    """As gpt-oss has it: the logit as one more key of the softmax, whose weight is then left out."""

    def normalize(scores):
        exponentials = [math.exp(one - max(*scores, logit)) for one in (*scores, logit)]
        return np.array(exponentials[:-1]) / sum(exponentials)

    return normalize


def entmax15(scores):
    """The definition: max(0, s / 2 − t)², which add up to 1; t by bisection."""
    low, high = max(scores) / 2 - 1, max(scores) / 2
    for _ in range(200):
        middle = (low + high) / 2
        total = sum(max(0.0, one / 2 - middle) ** 2 for one in scores)
        low, high = (middle, high) if total > 1 else (low, middle)
    return np.array([max(0.0, one / 2 - low) ** 2 for one in scores])


def relu_squared(scores):
    """As the gated attention unit was published: relu(s / n)², n keys."""
    return np.array([max(0.0, one / len(scores)) ** 2 for one in scores])


# ---- similarity ----


def dot_product(q, k):
    return q / math.sqrt(len(q)), k


def cos_scale(scale):
    def prepare(q, k):
        return scale * q / np.linalg.norm(q), k / np.linalg.norm(k)

    return prepare


# ---- scaling ----


def log_length(base, minimum=0.0):
    return lambda n: max(minimum, math.log(n) / math.log(base))


def info_scale(train_length, key_size):
    def spread(n):
        return math.sqrt(1 - n ** (-2 / key_size))

    return lambda n: spread(n) / spread(train_length)


def yarn_temperature(train_length):
    return lambda n: (0.1 * math.log(max(1, n / train_length)) + 1) ** 2


def llama4(alpha, floor_scale):
    return lambda n: 1 + alpha * math.log(math.floor(n / floor_scale) + 1)


def random_keys(entropy, train_length, key_size):
    """s_n / s_train with entropy(softmax(s · t)) = H₀, t the quantiles of the cosine; linear in ln n."""
    grid = np.linspace(-1, 1, 2_000_001)
    density = (1 - grid**2) ** ((key_size - 3) / 2)
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])

    def sharpness(n):
        t = np.interp((np.arange(n) + 0.5) / n, below / below[-1], grid)

        def found(s):
            weights = np.exp(s * (t - t.max()))
            weights /= weights.sum()
            return -(weights * np.log(np.maximum(weights, 1e-300))).sum()

        low, high = 0.0, 1000.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if found(middle) > entropy else (low, middle)
        return low

    lengths = [train_length * 2**m for m in range(8)]
    return table(lengths, [sharpness(n) / sharpness(train_length) for n in lengths])


# ---- position ----


def turned_product(q, k, angle):
    """Σ over pairs of q_m · R(angle_m) k_m, with R a rotation: angle(m) is that from the key to the query."""
    total = 0.0
    for m in range(len(q) // 2):
        left, right = complex(q[2 * m], q[2 * m + 1]), complex(k[2 * m], k[2 * m + 1])
        total += (left * right.conjugate() * complex(math.cos(angle(m)), math.sin(angle(m)))).real
    return total


def rope_score(base=10_000.0, distance=lambda i, j, document: i - j, stretch=lambda document: 1.0):
    """RoPE at a distance (query minus key) and over a base that a method may change."""

    def score(q, k, i, j, document):
        d = len(q)
        stretched = base * stretch(document) ** (d / (d - 2))
        return turned_product(q, k, lambda m: distance(i, j, document) * stretched ** (-2 * m / d))

    return score


def factor(document, train_length):
    return max(1.0, document.n / train_length)


def interpolated(train_length):
    return rope_score(distance=lambda i, j, document: (i - j) / factor(document, train_length))


def yarn(train_length, beta_fast=32.0, beta_slow=1.0, base=10_000.0):
    def score(q, k, i, j, document):
        d = len(q)

        def pair_turning(turns):
            return d * math.log(train_length / (turns * 2 * math.pi)) / (2 * math.log(base))

        low = max(math.floor(pair_turning(beta_fast)), 0)
        high = min(math.ceil(pair_turning(beta_slow)), d - 1)

        def angle(m):
            ramp = min(1.0, max(0.0, (m - low) / max(high - low, 0.001)))
            theta = base ** (-2 * m / d)
            return (i - j) * (ramp * theta / factor(document, train_length) + (1 - ramp) * theta)

        return turned_product(q, k, angle)

    return score


def partial_rope(fraction, base=10_000.0):
    def score(q, k, i, j, document):
        d = len(q)
        turning = math.floor(fraction * d / 2)
        return turned_product(q, k, lambda m: (i - j) * base ** (-2 * m / d) if m < turning else 0.0)

    return score


def scale_invariant(distance_scale, fraction):
    turned = partial_rope(fraction)

    def score(q, k, i, j, document):
        logarithm = math.log(abs(i - j) / distance_scale + 1)
        return math.sqrt(2 * logarithm + 1) * turned(q, k, i, j, document) - 2 * logarithm

    return score


def self_extend(window, group, train_length):
    def distance(i, j, document):
        d = i - j
        if document.n <= train_length or abs(d) < window:
            return d
        query, key = (i - document.first) // group, (j - document.first) // group
        apart = abs(query - key) + window - window // group
        return math.copysign(apart, d)

    return rope_score(distance=distance)


def leaky_rerope(window, train_length, k=math.inf):
    def distance(i, j, document):
        d = i - j
        if document.n <= train_length or abs(d) <= window:
            return d
        return math.copysign(window + (abs(d) - window) / k, d)

    return rope_score(distance=distance)


def biased(bias):
    return lambda q, k, i, j, document: float(q @ k) + bias(abs(i - j))


def sandwich(size=128, compression=8.0, base=10_000.0):
    return biased(lambda d: sum(math.cos(d * base ** (-2 * m / size)) for m in range(size // 2)) / compression)


def sinks_distance(radius, sinks, train_length):
    def distance(i, j, document):
        if document.n <= train_length or abs(i - j) <= radius:
            return i - j
        # places in the cache: the sinks, then the window around the query
        query, key = i - document.first, j - document.first
        cache = [*range(sinks), *(place for place in range(query - radius, query + 1) if place >= sinks)]
        return cache.index(query) - cache.index(key)

    return distance


def ceiling_distance(radius, train_length):
    def distance(i, j, document):
        if document.n <= train_length:
            return i - j
        return max(-radius, min(radius, i - j))

    return distance


# ---- visibility ----


def everything(i, j, document):
    return True


def window(radius):
    return lambda i, j, document: abs(i - j) <= radius


def window_and_sinks(radius, sinks, train_length):
    return lambda i, j, document: document.n <= train_length or abs(i - j) <= radius or j - document.first < sinks


def table(lengths, temperatures):
    """Linear in ln n between the lengths; as at the first below it; on the last two's line beyond."""

    def temperature(n):
        if n <= lengths[0]:
            return temperatures[0]
        piece = max(i for i in range(len(lengths) - 1) if lengths[i] <= n)
        (n0, n1), (t0, t1) = lengths[piece : piece + 2], temperatures[piece : piece + 2]
        return t0 + (t1 - t0) * (math.log(n) - math.log(n0)) / (math.log(n1) - math.log(n0))

    return temperature
