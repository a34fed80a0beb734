# SPDX-License-Identifier: MIT
"""Quantisers for ggml's Q4_K and Q6_K blocks (the gguf package decodes them, but does not make them).

Both search for scales that make the weighted square error small. `importance`, one number per input column, says how
much an error in that column matters (the mean square of that input); it is broadcast over the rows.
"""

import numpy as np

BLOCK = 256


def _weights(x, importance):
    """Weight per value: the column's importance, and more for large values, which carry most of the output."""
    rms = np.sqrt(np.mean(x * x, axis=-1, keepdims=True))
    w = np.sqrt(rms * rms + x * x) + 1e-12
    if importance is not None:
        w = w * np.broadcast_to(importance, x.shape)
    return w


def _as_f16(values):
    return values.astype(np.float16).astype(np.float64)


def _divide(a, b):
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


def quantize_q4_k(matrix, importance=None):
    """float [rows, K] -> uint8 [rows, K / 256 * 144]. A value is d * sc * q - dmin * mn; q in 0..15, sc and mn in
    0..63 for each 32 values, d and dmin (f16) for each 256."""
    rows, columns = matrix.shape
    assert columns % BLOCK == 0
    full = np.broadcast_to(importance, matrix.shape).reshape(-1, 8, 32) if importance is not None else None
    x = matrix.astype(np.float64).reshape(-1, 8, 32)
    w = _weights(x, full)

    # 1. The best real-valued scale and minimum of each sub-block: try several step sizes, solve the 2x2 weighted
    #    least squares problem for the codes each one gives, keep the best.
    low = np.minimum(x.min(-1), 0)
    span = x.max(-1) - low
    best_error = np.full(x.shape[:2], np.inf)
    scale, minimum = np.zeros(x.shape[:2]), np.zeros(x.shape[:2])
    sum_w, sum_x = w.sum(-1), (w * x).sum(-1)
    for levels in np.linspace(13.0, 18.0, 26):
        q = np.clip(np.rint(_divide((x - low[..., None]) * levels, span[..., None])), 0, 15)
        wq = w * q
        sum_q, sum_qq, sum_qx = wq.sum(-1), (wq * q).sum(-1), (wq * x).sum(-1)
        det = sum_w * sum_qq - sum_q * sum_q
        s = _divide(sum_w * sum_qx - sum_q * sum_x, det)
        m = _divide(sum_q * sum_qx - sum_qq * sum_x, det)
        negative = m < 0            # the format only has minima <= 0, that is m >= 0
        m = np.where(negative, 0, m)
        s = np.maximum(np.where(negative, _divide(sum_qx, sum_qq), s), 0)
        error = (w * (x - s[..., None] * q + m[..., None]) ** 2).sum(-1)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        scale, minimum = np.where(better, s, scale), np.where(better, m, minimum)

    # 2. Round scales and minima to 6 bits, then alternate: pick the best (sc, mn) around the present ones, refit
    #    d and dmin to all 256 values.
    d = _as_f16(scale.max(-1) / 63)
    dmin = _as_f16(minimum.max(-1) / 63)
    sc = np.clip(np.rint(_divide(scale, d[:, None])), 0, 63)
    mn = np.clip(np.rint(_divide(minimum, dmin[:, None])), 0, 63)

    def codes(sc, mn):
        step, offset = (d[:, None] * sc)[..., None], (dmin[:, None] * mn)[..., None]
        q = np.clip(np.rint(_divide(x + offset, step)), 0, 15)
        return q, (w * (x - step * q + offset) ** 2).sum(-1)

    for attempt in range(3):
        q, error = codes(sc, mn)
        centre_sc, centre_mn = sc, mn
        for ds in range(-2, 3):
            for dm in range(-2, 3):
                try_sc, try_mn = np.clip(centre_sc + ds, 0, 63), np.clip(centre_mn + dm, 0, 63)
                _, try_error = codes(try_sc, try_mn)
                better = try_error < error
                sc, mn = np.where(better, try_sc, sc), np.where(better, try_mn, mn)
                error = np.where(better, try_error, error)
        q, _ = codes(sc, mn)
        if attempt == 2:
            break
        a, b = sc[..., None] * q, np.broadcast_to(mn[..., None], q.shape)
        aa, ab, bb = (w * a * a).sum((1, 2)), (w * a * b).sum((1, 2)), (w * b * b).sum((1, 2))
        ax, bx = (w * a * x).sum((1, 2)), (w * b * x).sum((1, 2))
        det = aa * bb - ab * ab
        new_d, new_dmin = _divide(ax * bb - ab * bx, det), _divide(ab * ax - aa * bx, det)
        usable = (det > 0) & (new_d > 0) & (new_dmin >= 0)
        d, dmin = _as_f16(np.where(usable, new_d, d)), _as_f16(np.where(usable, new_dmin, dmin))

    # 3. Pack: 8 x (sc, mn) in 12 bytes, then low nibbles = even sub-blocks, high nibbles = odd ones.
    sc, mn, q = sc.astype(np.uint8), mn.astype(np.uint8), q.astype(np.uint8)
    packed = np.zeros((len(x), 12), np.uint8)
    packed[:, 0:4] = sc[:, :4] | (sc[:, 4:] >> 4) << 6
    packed[:, 4:8] = mn[:, :4] | (mn[:, 4:] >> 4) << 6
    packed[:, 8:12] = (sc[:, 4:] & 15) | (mn[:, 4:] & 15) << 4
    nibbles = (q[:, 0::2] | q[:, 1::2] << 4).reshape(len(x), 128)
    f16 = lambda v: v.astype(np.float16)[:, None].view(np.uint8)
    return np.concatenate([f16(d), f16(dmin), packed, nibbles], axis=1).reshape(rows, -1)


def quantize_q6_k(matrix, importance=None):
    """float [rows, K] -> uint8 [rows, K / 256 * 210]. A value is d * sc * q; q in -32..31, sc int8 for each 16
    values, d (f16) for each 256."""
    rows, columns = matrix.shape
    assert columns % BLOCK == 0
    full = np.broadcast_to(importance, matrix.shape).reshape(-1, 16, 16) if importance is not None else None
    x = matrix.astype(np.float64).reshape(-1, 16, 16)
    w = _weights(x, full)

    # 1. The best real-valued scale of each sub-block. It may be negative: that puts the code -32 on the larger side.
    peak = np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)[..., 0]
    best_error = np.full(x.shape[:2], np.inf)
    scale = np.zeros(x.shape[:2])
    for levels in np.linspace(-34.0, -29.0, 21):
        q = np.clip(np.rint(_divide(x * levels, peak[..., None])), -32, 31)
        s = _divide((w * q * x).sum(-1), (w * q * q).sum(-1))
        error = (w * (x - s[..., None] * q) ** 2).sum(-1)
        better = error < best_error
        best_error, scale = np.where(better, error, best_error), np.where(better, s, scale)

    # 2. Round the scales to 8 bits and improve in turns, as above.
    d = _as_f16(np.abs(scale).max(-1) / 127)
    sc = np.clip(np.rint(_divide(scale, d[:, None])), -128, 127)

    def codes(sc):
        step = (d[:, None] * sc)[..., None]
        q = np.clip(np.rint(_divide(x, step)), -32, 31)
        return q, (w * (x - step * q) ** 2).sum(-1)

    for attempt in range(3):
        q, error = codes(sc)
        centre = sc
        for ds in range(-3, 4):
            try_sc = np.clip(centre + ds, -128, 127)
            _, try_error = codes(try_sc)
            better = try_error < error
            sc, error = np.where(better, try_sc, sc), np.where(better, try_error, error)
        q, _ = codes(sc)
        if attempt == 2:
            break
        a = sc[..., None] * q
        d = _as_f16(_divide((w * a * x).sum((1, 2)), (w * a * a).sum((1, 2))))

    # 3. Pack: the 256 codes are two halves of four runs of 32. ql: runs 0 and 1 in low nibbles, 2 and 3 in high ones;
    #    qh: two high bits of the four runs, run 0 lowest.
    q = (q.reshape(-1, 2, 4, 32) + 32).astype(np.uint8)
    ql = np.concatenate([(q[:, :, 0] & 15) | (q[:, :, 2] & 15) << 4, (q[:, :, 1] & 15) | (q[:, :, 3] & 15) << 4], -1)
    qh = q[:, :, 0] >> 4 | q[:, :, 1] >> 4 << 2 | q[:, :, 2] >> 4 << 4 | q[:, :, 3] >> 4 << 6
    return np.concatenate([ql.reshape(-1, 128), qh.reshape(-1, 64), sc.astype(np.int8).view(np.uint8),
                           d.astype(np.float16)[:, None].view(np.uint8)], axis=1).reshape(rows, -1)
