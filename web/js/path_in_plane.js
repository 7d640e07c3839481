// What the panel computes: no page, no ComfyUI.

/** Index of the last entry of the increasing list `values` that is not above `value` (0 if all are). */
export function lastNotAbove(values, value) {
    let low = 0, high = values.length - 1;
    while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (values[middle] <= value) low = middle;
        else high = middle - 1;
    }
    return low;
}

/** Point of the path at `time`: linear between its points. */
export function pointAt(path, times, time) {
    const at = Math.min(lastNotAbove(times, time), times.length - 2);
    if (at < 0) return path[0];
    const share = Math.min(1, Math.max(0, (time - times[at]) / (times[at + 1] - times[at])));
    return [0, 1].map(axis => path[at][axis] + share * (path[at + 1][axis] - path[at][axis]));
}

/** Frame of the clip that is nearest in time. */
export function frameAt(frameTimes, time) {
    const at = lastNotAbove(frameTimes, time);
    const next = Math.min(at + 1, frameTimes.length - 1);
    return Math.abs(frameTimes[next] - time) < Math.abs(frameTimes[at] - time) ? next : at;
}

/** The map from the plane to a picture of `width` x `height` with a margin; both axes have one scale. */
export function fitInto(points, width, height, margin) {
    const low = [0, 1].map(axis => Math.min(...points.map(point => point[axis])));
    const high = [0, 1].map(axis => Math.max(...points.map(point => point[axis])));
    const room = [width - 2 * margin, height - 2 * margin];
    const scale = Math.min(...[0, 1].map(axis => room[axis] / Math.max(high[axis] - low[axis], 1e-9)), 1e9);
    const middle = [0, 1].map(axis => (low[axis] + high[axis]) / 2);
    return ([x, y]) => [width / 2 + scale * (x - middle[0]), height / 2 - scale * (y - middle[1])];
}

/** Index of the point nearest to `place`. */
export function nearest(points, place) {
    let best = 0, least = Infinity;
    points.forEach(([x, y], index) => {
        const distance = (x - place[0]) ** 2 + (y - place[1]) ** 2;
        if (distance < least) [best, least] = [index, distance];
    });
    return best;
}
