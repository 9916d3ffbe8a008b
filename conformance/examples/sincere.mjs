// SINCERE in another language, from its paper, and a runner that judges it by the files alone: node sincere.mjs ../suite
// Exit status: 0 if all that was asked passed, 1 if something failed, 2 if there was nothing to ask.
import { readFileSync, readdirSync, existsSync } from "node:fs";
import { join } from "node:path";

const U = 2 ** -53, TINY = 2 ** -1022, STEP = 2 ** -1074, K = 4;

function number(text) { // "-0x1.8p-3" is -(1 + 8/16) * 2 ** -3
  const [, sign, whole, , digits = "", exponent] = /^(-?)0x([01])(\.([0-9a-f]+))?p([+-]\d+)$/.exec(text);
  const mantissa = parseInt(whole, 16) + (digits ? parseInt(digits, 16) / 16 ** digits.length : 0);
  const e = Math.max(Number(exponent), -1000); // in two steps, since 2 ** -1074 is the smallest power there is
  return (sign ? -1 : 1) * mantissa * 2 ** e * 2 ** (Number(exponent) - e);
}

export function sincere({ rows, labels, temperature, normalize, reduction, cotangent }) {
  const n = rows.length, size = [], norm = [];
  const unit = rows.map((row, i) => {
    if (!normalize) return row;
    size[i] = Math.max(...row.map(Math.abs)) || Infinity; // a zero row stays zero, and its gradient too
    const scaled = row.map((x) => x / size[i]);
    norm[i] = Math.sqrt(scaled.reduce((sum, x) => sum + x * x, 0)) || 1;
    return scaled.map((x) => x / norm[i]);
  });
  const dot = (a, b) => a.reduce((sum, x, k) => sum + x * b[k], 0);
  const s = unit.map((a) => unit.map((b) => dot(a, b)));
  const everyone = [...Array(n).keys()], losses = [], slopes = [], positives = [];
  for (const i of everyone) {
    const positive = everyone.filter((j) => j !== i && labels[j] === labels[i]);
    const negative = everyone.filter((j) => labels[j] !== labels[i]);
    const counts = positive.length > 0 && negative.length > 0, slope = Array(n).fill(0);
    let loss = 0;
    if (counts) {
      const peak = Math.max(...negative.map((j) => s[i][j])) / temperature;
      const noise = peak + Math.log(negative.reduce((sum, j) => sum + Math.exp(s[i][j] / temperature - peak), 0));
      let pull = 0;
      for (const j of positive) {
        const t = noise - s[i][j] / temperature, share = 1 / (1 + Math.exp(-t)) / positive.length;
        loss += (Math.max(t, 0) + Math.log1p(Math.exp(-Math.abs(t)))) / positive.length;
        slope[j] -= share;
        pull += share;
      }
      for (const j of negative) slope[j] += pull * Math.exp(s[i][j] / temperature - noise);
    }
    losses.push(loss), slopes.push(slope), positives.push(counts ? positive.length : 0);
  }
  const counted = positives.map((p) => (reduction === "pairs" ? p : Number(p > 0)));
  const total = reduction === "batch" ? n : counted.reduce((a, b) => a + b, 0);
  const weights = counted.map((c) => (["sum", "none"].includes(reduction) ? c : total ? c / total : 0));
  const value = reduction === "none" ? losses : dot(weights, losses);
  let byTemperature = 0;
  const upstream = weights.map((w, i) => w * (reduction === "none" ? cotangent[i] : cotangent));
  const byUnit = unit.map((row) => row.map(() => 0));
  for (const i of everyone) for (const j of everyone) {
    const c = (upstream[i] * slopes[i][j]) / temperature;
    byTemperature -= (c * s[i][j]) / temperature;
    unit[i].forEach((_, k) => { byUnit[i][k] += c * unit[j][k], byUnit[j][k] += c * unit[i][k]; });
  }
  const embeddings = byUnit.map((g, i) => {
    if (!normalize) return g;
    const along = dot(g, unit[i]);
    return g.map((x, k) => (x - along * unit[i][k]) / norm[i] / size[i]);
  });
  return { value, gradient: { embeddings: embeddings.flat(), temperature: byTemperature } };
}

function worst(got, { hex, scale }, floor) { // the error in units of u times the scale, after what cannot be avoided
  const errors = [hex].flat().map((text, i) => {
    const want = number(text), error = Math.abs([got].flat()[i] - want);
    const excess = error - (U * Math.abs(want) + floor * TINY + STEP / 2);
    return excess <= 0 ? 0 : excess / (U * number([scale].flat()[i])) || Infinity; // NaN is infinitely wrong
  });
  return [got].flat().length === errors.length ? Math.max(0, ...errors) : Infinity;
}

function run(suite) {
  const tally = { pass: 0, fail: 0, unsupported: 0 };
  for (const profile of readdirSync(suite)) {
    const path = join(suite, profile, "sincere.json");
    if (!existsSync(path)) continue;
    for (const { id, says, options, normalize, reduction, dtypes, arguments: given, cotangent, value, gradient } of JSON.parse(readFileSync(path)).cases) {
      const plain = Object.keys(given).every((name) => ["embeddings", "labels"].includes(name)) && number(options.epsilon) === 0;
      if (!plain || (dtypes && !dtypes.includes("float64"))) { tally.unsupported += 1; continue; }
      const { shape, hex } = given.embeddings, d = shape.at(-1), count = shape.slice(0, -1).reduce((a, b) => a * b, 1);
      const rows = [...Array(count).keys()].map((i) => hex.slice(i * d, (i + 1) * d).map(number));
      const labels = rows.map((_, i) => given.labels[shape.length === 3 ? Math.floor(i / shape[1]) : i]);
      const temperature = number(options.temperature);
      const got = sincere({ rows, labels, temperature, normalize, reduction, cotangent: [cotangent].flat().map(number)[0], ...(reduction === "none" && { cotangent: cotangent.map(number) }) });
      const floor = Math.max(count, 1) * Math.max(1, 1 / temperature);
      const ratios = [["value", worst(got.value, value, floor)], ...Object.entries(gradient).map(([name, wanted]) => [`gradient.${name}`, worst(got.gradient[name], wanted, floor)])];
      const bad = ratios.filter(([, ratio]) => !(ratio <= K));
      tally[bad.length ? "fail" : "pass"] += 1;
      if (bad.length) console.log(`${id}: ${bad.map(([what, ratio]) => `${what} at ratio ${ratio.toPrecision(2)} of ${K}`).join(", ")}. ${says}`);
    }
  }
  console.log(JSON.stringify(tally));
  process.exit(tally.fail ? 1 : tally.pass ? 0 : 2);
}

if (process.argv[1].endsWith("sincere.mjs")) run(process.argv[2]);
