// node dawn.mjs PACKAGE TEXTS: compiles every text of a folder by Dawn's compiler (npm's package
// `webgpu`), as Chrome would. What is called `subgroups-*` may use them. Nothing is run, so Dawn's
// null device serves.
import { readFileSync, readdirSync } from "fs";
import { pathToFileURL } from "url";

const [at, folder] = process.argv.slice(2);
const { create, globals } = await import(pathToFileURL(`${at}/index.js`));
Object.assign(globalThis, globals);
const gpu = create(["backend=null"]);
const device = async (...more) => (await gpu.requestAdapter()).requestDevice({ requiredFeatures: ["shader-f16", ...more] });
const devices = { plain: await device(), subgroups: await device("subgroups") };

async function errors(kind, code) {
    devices[kind].pushErrorScope("validation");
    const { messages } = await devices[kind].createShaderModule({ code }).getCompilationInfo();
    await devices[kind].popErrorScope();
    return messages.filter((message) => message.type === "error").map((m) => `${m.lineNum}: ${m.message}`);
}

const counts = { plain: 0, subgroups: 0 };
let failures = 0;
for (const name of readdirSync(folder).sort()) {
    const code = readFileSync(`${folder}/${name}`, "utf8");
    const kind = name.split("-")[0];
    const [first] = await errors(kind, code);
    counts[kind] += 1;
    if (first) {
        failures += 1;
        console.log(`${name}: ${code.split("\n")[0]}: line ${first}`);
    }
}
// A compiler that refuses nothing has not looked.
const mixed = (await errors("plain", "const x = 1u & 3u << 2u;")).length + (await errors("plain", "enable subgroups;")).length;
console.log(`${counts.plain} texts without subgroups, ${counts.subgroups} with; ${failures} are refused`);
process.exit(failures === 0 && mixed === 2 && counts.plain > 100 && counts.subgroups > 100 ? 0 : 1);
