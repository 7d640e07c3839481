// A panel in Fit Trajectory ODE and Load Trajectory: the path of the codes in the plane of their strongest motion, to be
// run through with the mouse. It uses app.registerExtension, node.onExecuted and node.addDOMWidget, and does nothing
// where one of them is missing.
import { app } from "../../../scripts/app.js";
import { fitInto, frameAt, nearest, pointAt } from "./path_in_plane.js";

const NODES = ["DynODE_FitTrajectory", "DynODE_LoadTrajectory"];
const OUTPUT = "dynode_path", WIDGET = "dynode_path_panel";
const HEIGHT = 250, MARGIN = 14;
const COLOURS = { path: "#2b7bba", past: "#7fb6e0", observed: "#9aa3b2", here: "#d1495b" };

class PathPanel {
    constructor() {
        this.element = document.createElement("div");
        this.element.className = "dynode-path-panel";
        Object.assign(this.element.style, { display: "flex", flexDirection: "column", gap: "4px", fontSize: "12px" });
        this.canvas = document.createElement("canvas");
        Object.assign(this.canvas.style, { flex: "1", minHeight: "0", width: "100%", cursor: "crosshair", touchAction: "none" });
        this.slider = document.createElement("input");
        Object.assign(this.slider, { type: "range", step: "any" });
        this.slider.setAttribute("aria-label", "time in the clip");
        this.label = document.createElement("div");
        this.element.append(this.canvas, this.slider, this.label);
        this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
        for (const kind of ["pointerdown", "pointermove"]) {
            this.canvas.addEventListener(kind, event => {
                if (kind === "pointerdown") this.canvas.setPointerCapture?.(event.pointerId);
                if (event.buttons & 1 && this.data) this.show(this.timeUnder(event));
                event.stopPropagation();
            });
        }
        if (typeof ResizeObserver === "function") new ResizeObserver(() => this.draw()).observe(this.canvas);
    }

    /** Take what the node sent and go to the first frame. */
    load(data) {
        this.data = data;
        this.slider.min = data.times[0];
        this.slider.max = data.times[data.times.length - 1];
        this.show(data.times[0]);
    }

    show(time) {
        this.time = time;
        this.slider.value = time;
        const frames = this.data.frame_times;
        const frame = frames.length ? `frame ${frameAt(frames, time)} of ${frames.length - 1}, ` : "";
        this.label.textContent = `${frame}${time.toFixed(2)} s`;
        this.draw();
    }

    timeUnder(event) {
        const box = this.canvas.getBoundingClientRect();
        const place = [
            ((event.clientX - box.x) / Math.max(box.width, 1)) * this.canvas.width,
            ((event.clientY - box.y) / Math.max(box.height, 1)) * this.canvas.height,
        ];
        return this.data.times[nearest(this.data.path.map(this.placed()), place)];
    }

    placed() {
        return fitInto([...this.data.path, ...this.data.observed], this.canvas.width, this.canvas.height, MARGIN);
    }

    draw() {
        if (!this.data) return;
        const ratio = window.devicePixelRatio || 1;
        const width = Math.max(1, Math.round((this.canvas.clientWidth || 300) * ratio));
        const height = Math.max(1, Math.round((this.canvas.clientHeight || 180) * ratio));
        if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
        const context = this.canvas.getContext("2d");
        if (!context) return;
        context.clearRect(0, 0, width, height);
        const { path, times, observed, cuts } = this.data;
        const placed = this.placed();
        context.fillStyle = COLOURS.observed;
        for (const point of observed) dot(context, placed(point), 2 * ratio);
        context.lineWidth = 2 * ratio;
        for (let i = 0; i + 1 < path.length; i++) {
            if (cuts.some(cut => cut > times[i] && cut <= times[i + 1])) continue;
            context.strokeStyle = times[i] < this.time ? COLOURS.past : COLOURS.path;
            context.beginPath();
            context.moveTo(...placed(path[i]));
            context.lineTo(...placed(path[i + 1]));
            context.stroke();
        }
        context.fillStyle = COLOURS.here;
        dot(context, placed(pointAt(path, times, this.time)), 5 * ratio);
    }
}

function dot(context, [x, y], radius) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
}

/** The panel of a node, made when its first path arrives, so that saved workflows never hold it. */
function panelOf(node) {
    const known = node.widgets?.find(widget => widget.name === WIDGET);
    if (known) return known.panel;
    const panel = new PathPanel();
    const options = { serialize: false, hideOnZoom: false, getMinHeight: () => HEIGHT };
    const widget = node.addDOMWidget(WIDGET, "dynode_path", panel.element, options);
    widget.serialize = false;
    widget.panel = panel;
    const wanted = node.computeSize?.();
    if (wanted && node.setSize) node.setSize([Math.max(node.size[0], wanted[0]), Math.max(node.size[1], wanted[1])]);
    return panel;
}

app?.registerExtension?.({
    name: "DynODE.TrajectoryPanel",
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (!NODES.includes(nodeData.name)) return;
        const before = nodeType.prototype.onExecuted;
        nodeType.prototype.onExecuted = function (output) {
            const result = before?.apply(this, arguments);
            const data = output?.[OUTPUT]?.[0];
            if (data && typeof this.addDOMWidget === "function") {
                try {
                    panelOf(this).load(data);
                } catch (reason) {
                    console.warn("ComfyUI-DynODE: the panel of the trajectory could not be shown.", reason);
                }
            }
            return result;
        };
    },
});
