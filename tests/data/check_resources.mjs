// Checks documents of Kubernetes' extensions against the schemas of @kubernetes-models: a JSON list of them from standard
// input, a JSON list of complaints to standard output.
//
// The schemas say nothing of fields that they do not know, which a cluster would drop: a misspelt one goes unnoticed. So
// every field is also tried with values of every type. A schema that knows it refuses some of them.
import { readFileSync } from "node:fs";

const PACKAGES = { "keda.sh": "keda", "istio.io": "istio", "monitoring.coreos.com": "prometheus-operator" };
const TRIED = [0, "text", true, null, [], [[]], {}, { a: [[]] }];

async function modelOf({ apiVersion, kind }) {
  const [group] = apiVersion.split("/");
  const name = PACKAGES[group] ?? PACKAGES[group.split(".").slice(1).join(".")];
  if (!name) throw new Error(`There are no schemas of ${apiVersion}.`);
  const path = `@kubernetes-models/${name}/${apiVersion}/${kind}`;
  return (await import(path))[kind];
}

function fault(Model, document) {
  try {
    new Model(document).validate();
    return null;
  } catch (error) {
    return error.message;
  }
}

function* pathsOf(node, path = []) {
  if (path.length) yield path;
  if (node !== null && typeof node === "object")
    for (const key of Object.keys(node)) yield* pathsOf(node[key], [...path, Array.isArray(node) ? Number(key) : key]);
}

function changed(document, path, value) {
  const copy = structuredClone(document);
  const parent = path.slice(0, -1).reduce((node, key) => node[key], copy);
  parent[path.at(-1)] = value;
  return copy;
}

const complaints = [];
for (const document of JSON.parse(readFileSync(0, "utf8"))) {
  const Model = await modelOf(document);
  const name = `${document.kind} ${document.metadata.name}`;
  const wrong = fault(Model, document);
  if (wrong) complaints.push(`${name}: ${wrong}`);
  for (const path of pathsOf(document.spec ?? {}, ["spec"]))
    if (TRIED.every((value) => fault(Model, changed(document, path, value)) === null))
      complaints.push(`${name}: no schema knows ${path.join(".")}`);
}
console.log(JSON.stringify(complaints));
