"""Attention as the papers write it: loops over i and j in float64, nothing shared with the code under test."""

import math

import numpy as np


def attention(query, key, value, score, temperature, sees, real, segments):
    """One row. Arrays: query and key (L, D), value (L, E), real (L,) bool, segments (L,).

    score(q, k, i, j) is similarity plus bias; temperature(n) is τ; sees(i, j) is the method's own visibility.
    Returns (L, E); rows of queries that see nothing are 0.
    """
    length = len(query)
    out = np.zeros((length, value.shape[1]))
    for i in range(length):
        keys = [j for j in range(length) if real[j] and segments[i] == segments[j] and sees(i, j)]
        if not keys:
            continue
        tau = temperature(len(keys))
        scores = np.array([tau * score(query[i], key[j], i, j) for j in keys])
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        for weight, j in zip(weights, keys, strict=True):
            out[i] += weight * value[j]
    return out


def turned_product(q, k, angle):
    """Σ over pairs of q_m · R(angle_m) k_m, with R a rotation: angle(m) is that from the key to the query."""
    total = 0.0
    for m in range(len(q) // 2):
        left, right = complex(q[2 * m], q[2 * m + 1]), complex(k[2 * m], k[2 * m + 1])
        total += (left * right.conjugate() * complex(math.cos(angle(m)), math.sin(angle(m)))).real
    return total


def rope_score(base=10_000.0):
    def score(q, k, i, j):
        return turned_product(q, k, lambda m: (i - j) * base ** (-2 * m / len(q)))

    return score


def dot_product(q, k):
    return q / math.sqrt(len(q)), k


def cos_scale(scale):
    def prepare(q, k):
        return scale * q / np.linalg.norm(q), k / np.linalg.norm(k)

    return prepare


def log_length(base, minimum=0.0):
    return lambda n: max(minimum, math.log(n) / math.log(base))


def info_scale(train_length, key_size):
    def spread(n):
        return math.sqrt(1 - n ** (-2 / key_size))

    return lambda n: spread(n) / spread(train_length)


def table(lengths, temperatures):
    """Linear in ln n between the lengths; as at the first below it; on the last two's line beyond."""

    def temperature(n):
        if n <= lengths[0]:
            return temperatures[0]
        piece = max(i for i in range(len(lengths) - 1) if lengths[i] <= n)
        (n0, n1), (t0, t1) = lengths[piece : piece + 2], temperatures[piece : piece + 2]
        return t0 + (t1 - t0) * (math.log(n) - math.log(n0)) / (math.log(n1) - math.log(n0))

    return temperature
