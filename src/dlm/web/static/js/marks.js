// What is drawn on a chart beside its lines: lines to compare with, saved checkpoints, what the rules point at.

const probe = document.createElement("span");
probe.hidden = true;
document.documentElement.append(probe);

/** A colour variable of base.css as it is now, as `rgb(…)`. */
export function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** The colour, lighter. */
export function withAlpha(rgb, alpha) {
  const [red, green, blue] = rgb.match(/[\d.]+/g);
  return `rgba(${red}, ${green}, ${blue}, ${alpha})`;
}

const SEVERITY = { severe: "bad", warn: "warn", info: "busy" };

/** A uPlot plugin that draws the guides of the panel's header and the marks of its office. */
export function marksPlugin(panel) {
  return { hooks: { drawClear: [(drawn) => below(drawn, panel)], draw: [(drawn) => above(drawn, panel)] } };
}

function below(drawn, panel) {
  const { ctx, bbox } = drawn;
  const scale = devicePixelRatio;
  ctx.save();
  clip(ctx, bbox);
  ctx.strokeStyle = ctx.fillStyle = withAlpha(colour("soft"), 0.9);
  ctx.lineWidth = scale;
  ctx.font = `${11 * scale}px system-ui, sans-serif`;
  for (const guide of panel.header.guides) {
    const y = drawn.valToPos(guide.value, "y", true);
    if (!Number.isFinite(y) || y < bbox.top || y > bbox.top + bbox.height) continue;
    ctx.setLineDash([2 * scale, 4 * scale]);
    line(ctx, bbox.left, y, bbox.left + bbox.width, y);
    ctx.setLineDash([]);
    ctx.textAlign = "right";
    ctx.fillText(guide.label, bbox.left + bbox.width - 4 * scale, y - 4 * scale);
  }
  ctx.restore();
}

function above(drawn, panel) {
  const { ctx, bbox } = drawn;
  const { marks } = panel.office;
  if (!marks) return;
  const scale = devicePixelRatio;
  ctx.save();
  clip(ctx, bbox);
  for (const one of marks.checkpoints) {
    const x = drawn.valToPos(one.x, "x", true);
    const bottom = bbox.top + bbox.height;
    ctx.fillStyle = one.version ? colour("good") : withAlpha(colour("soft"), one.there ? 0.9 : 0.35);
    ctx.beginPath();
    ctx.moveTo(x, bottom - 8 * scale);
    ctx.lineTo(x - 4 * scale, bottom);
    ctx.lineTo(x + 4 * scale, bottom);
    ctx.fill();
  }
  const names = new Set(panel.lines.filter((one) => one.run === panel.office.view.run).map((one) => one.name));
  for (const finding of marks.findings) {
    if (!names.has(finding.series)) continue;
    ctx.strokeStyle = ctx.fillStyle = colour(SEVERITY[finding.severity]);
    ctx.lineWidth = 1.5 * scale;
    ctx.font = `bold ${11 * scale}px system-ui, sans-serif`;
    finding.x.forEach((at, place) => {
      const x = drawn.valToPos(at, "x", true);
      const value = finding.values[place];
      const y = value === null || value === undefined ? bbox.top + bbox.height / 2 : drawn.valToPos(value, "y", true);
      ctx.beginPath();
      ctx.arc(x, Number.isFinite(y) ? y : bbox.top, 5 * scale, 0, 2 * Math.PI);
      ctx.stroke();
      ctx.textAlign = x < bbox.left + 12 * scale ? "left" : x > bbox.left + bbox.width - 12 * scale ? "right" : "center";
      if (place === 0) {
        const beside = ctx.textAlign === "left" ? 8 : ctx.textAlign === "right" ? -8 : 0;
        ctx.fillText(`!${finding.number}`, x + beside * scale, Math.max(bbox.top + 11 * scale, y - (beside ? -4 : 9) * scale));
      }
    });
  }
  ctx.restore();
}

function clip(ctx, bbox) {
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
}

function line(ctx, x0, y0, x1, y1) {
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
}
