// A small server on the TypeScript SDK 2, which speaks both eras: stdio, or streamable HTTP at
// `/mcp` with `--http PORT` (0 takes a free one). With `--modern-only` it refuses `initialize`. The
// SDK is looked up in the npm prefix that NODE_PREFIX names, since it is not installed beside this
// file.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { parseArgs } from "node:util";

const require = createRequire(join(process.env.NODE_PREFIX, "package.json"));
const { McpServer, createMcpHandler } = require("@modelcontextprotocol/server");
const { serveStdio } = require("@modelcontextprotocol/server/stdio");
const { toNodeHandler } = require("@modelcontextprotocol/node");
const { z } = require("zod");

const text = (words, isError = false) => ({ content: [{ type: "text", text: words }], isError });

function makeServer() {
  const server = new McpServer({ name: "ts-sdk", version: "1.2.3" });
  const annotations = { readOnlyHint: true };
  server.registerTool(
    "add",
    {
      description: "Adds two numbers.",
      inputSchema: z.object({ a: z.number(), b: z.number() }),
      annotations,
    },
    async ({ a, b }) => text(String(a + b)),
  );
  server.registerTool(
    "fail",
    { description: "Always fails, inside a good answer.", inputSchema: z.object({}), annotations },
    async () => text("asked to", true),
  );
  return server;
}

const { values: options } = parseArgs({
  options: { http: { type: "string" }, "modern-only": { type: "boolean" } },
});
const modernOnly = options["modern-only"] ? { legacy: "reject" } : {};
if (options.http === undefined) {
  serveStdio(makeServer, modernOnly);
} else {
  const answer = toNodeHandler(createMcpHandler(makeServer, modernOnly));
  const server = createServer((request, response) => {
    if (new URL(request.url, "http://localhost").pathname === "/mcp") {
      answer(request, response);
    } else {
      response.writeHead(404).end();
    }
  });
  server.listen(Number(options.http), "127.0.0.1");
}
