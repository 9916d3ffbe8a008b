// The same, put to the question by sincere-spec, a line of JSON at a time:
//     sincere-spec verify --exec "node program.mjs" --loss sincere
import { createInterface } from "node:readline";
import { sincere } from "./sincere.mjs";

function answer({ loss, options, normalize, reduction, arguments: given, cotangent }) {
  if (loss !== "sincere" || options.epsilon) return { unsupported: "only SINCERE, without a margin" };
  const more = Object.keys(given).filter((name) => !["embeddings", "labels"].includes(name));
  if (more.length) return { unsupported: `no ${more.join(", ")}` };
  const { shape, numbers } = given.embeddings, d = shape.at(-1);
  const count = shape.slice(0, -1).reduce((a, b) => a * b, 1);
  const rows = [...Array(count).keys()].map((i) => numbers.slice(i * d, (i + 1) * d).map(Number));
  const labels = rows.map((_, i) => given.labels[shape.length === 3 ? Math.floor(i / shape[1]) : i]);
  const got = sincere({ rows, labels, temperature: options.temperature, normalize, reduction, cotangent });
  const plain = (x) => (Number.isNaN(x) ? "nan" : x);
  return { value: Array.isArray(got.value) ? got.value.map(plain) : plain(got.value), gradient: got.gradient };
}

for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(answer(JSON.parse(line))));
