// Asks loragate about an adapter: `npm run audit -- http://127.0.0.1:50051 adapter.safetensors`.
// Ends with 0 if it may be loaded, with 1 if not, and with 2 if there is no decision.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { AuditService, VerdictKind } from "./gen/loragate/v1/audit_pb.js";

const TIMEOUT_MS = 60_000;

async function main(address: string, file: string): Promise<number> {
  const ca = process.env.LORAGATE_CA; // PEM file, for addresses that begin with https
  const token = process.env.LORAGATE_TOKEN;
  if (ca && !address.startsWith("https://")) {
    throw new ConnectError("LORAGATE_CA is set; the address has to begin with https://.");
  }
  const transport = createGrpcTransport({
    baseUrl: address,
    nodeOptions: ca ? { ca: readFileSync(ca) } : {},
  });
  const adapter = readFileSync(file);
  const headers = new Headers({ "loragate-inline-bytes": String(adapter.length) });
  if (token) headers.set("authorization", `Bearer ${token}`);
  const { verdict } = await createClient(AuditService, transport).audit(
    { adapters: [{ source: { case: "inlineBytes", value: adapter }, declaredName: basename(file) }] },
    { headers, timeoutMs: TIMEOUT_MS },
  );
  if (!verdict) throw new ConnectError("The answer holds no verdict.", Code.Internal);
  console.log(`${VerdictKind[verdict.verdict]} ${verdict.decisionId}`);
  for (const reason of verdict.reasons) console.log(`  ${reason.message}`);
  // Anything but ALLOW, kinds that later versions may add included, is a no; so is a verdict that
  // does not bind, such as that of a dry run.
  return verdict.verdict === VerdictKind.ALLOW && verdict.binding ? 0 : 1;
}

const [address, file] = process.argv.slice(2);
if (!address || !file) {
  console.error("usage: audit http://HOST:PORT FILE");
  process.exit(2);
}
main(address, file).then(
  (status) => process.exit(status),
  (error: unknown) => {
    const { code, rawMessage } = ConnectError.from(error);
    console.error(`no decision: ${Code[code]}: ${rawMessage}`);
    process.exit(2);
  },
);
