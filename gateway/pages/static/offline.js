// Checks a receipt's code without a network: base45, CBOR, COSE_Sign1 and Ed25519, on keys that the
// page holds. Every word that is shown stands in the page already; this only uncovers it.
const box = document.getElementById("check");
const keys = JSON.parse(box.dataset.keys);
const words = JSON.parse(box.dataset.words);
const DAY = 86_400_000;

class Cut extends Error {}

const say = (name, shown = true) => {
  box.querySelector(`[data-say=${name}]`).hidden = !shown;
};
const hush = () => {
  for (const each of document.querySelectorAll("#answer [data-say]")) each.hidden = true;
};

// RFC 9285. Where a line was broken, a space may have stood or nothing.
const SIGNS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";
function base45(text) {
  const out = [];
  for (let at = 0; at < text.length; at += 3) {
    const group = [...text.slice(at, at + 3)].map((sign) => SIGNS.indexOf(sign));
    if (group.includes(-1) || group.length === 1) throw new Cut();
    const value = group.reduceRight((sum, digit) => sum * 45 + digit, 0);
    if (value > (group.length === 3 ? 0xffff : 0xff)) throw new Cut();
    if (group.length === 3) out.push(value >> 8);
    out.push(value & 0xff);
  }
  return new Uint8Array(out);
}

// What receipts are made of: integers, bytes, texts, arrays and maps of stated length, one tag.
function cbor(bytes) {
  let at = 0;
  const take = (count) => {
    if (at + count > bytes.length) throw new Cut();
    return bytes.slice(at, (at += count));
  };
  const item = (depth) => {
    const [head] = take(1);
    let count = head & 31;
    if (count > 27 || depth > 4) throw new Cut();
    if (count > 23) {
      count = take(1 << (count - 24)).reduce((sum, byte) => sum * 256 + byte, 0);
    }
    if (!Number.isSafeInteger(count)) throw new Cut();
    switch (head >> 5) {
      case 0: return count;
      case 1: return -1 - count;
      case 2: return take(count);
      case 3: return new TextDecoder("utf-8", { fatal: true }).decode(take(count));
      case 4: return Array.from({ length: bounded(count) }, () => item(depth + 1));
      case 5: return new Map(Array.from({ length: bounded(count) }, () => [item(depth + 1), item(depth + 1)]));
      default: throw new Cut();
    }
  };
  const bounded = (count) => {
    if (count > bytes.length) throw new Cut();
    return count;
  };
  const whole = item(0);
  if (at !== bytes.length) throw new Cut();
  return whole;
}

const head = (kind, length) =>
  length < 24 ? [kind | length] : length < 256 ? [kind | 24, length] : [kind | 25, length >> 8, length & 255];
const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);
const EDDSA = new Uint8Array([0xa1, 0x01, 0x27]);

// RFC 9052: what the signature covers.
function covered(payload) {
  const context = new TextEncoder().encode("Signature1");
  return new Uint8Array([
    0x84, ...head(0x60, context.length), ...context, ...head(0x40, EDDSA.length), ...EDDSA, 0x40,
    ...head(0x40, payload.length), ...payload,
  ]);
}

const fromBase64Url = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (sign) => sign.charCodeAt(0));

async function signedBy(jwk, signature, bytes) {
  const key = await crypto.subtle.importKey("raw", fromBase64Url(jwk.x), "Ed25519", false, ["verify"]);
  return crypto.subtle.verify("Ed25519", key, signature, bytes);
}

async function read(bytes) {
  if (bytes[0] !== 0xd2) return { finding: bytes.length ? "foreign" : "cut" };
  const message = cbor(bytes.slice(1));
  if (!Array.isArray(message) || message.length !== 4 || !(message[1] instanceof Map)) throw new Cut();
  const [algorithm, open, payload, signature] = message;
  const named = open.get(4);
  const id = named instanceof Uint8Array ? new TextDecoder().decode(named) : null;
  const key = keys.find((each) => each.kid === id);
  if (!key) return { finding: "foreign" };
  if (!(algorithm instanceof Uint8Array && payload instanceof Uint8Array && signature instanceof Uint8Array)) throw new Cut();
  const good = same(algorithm, EDDSA) && signature.length === 64 && (await signedBy(key, signature, covered(payload)));
  return good ? { finding: "genuine", claims: cbor(payload), key } : { finding: "changed" };
}

async function verdict(text) {
  const plain = text.replace(/\p{Cf}/gu, "").trim().replaceAll("\u00a0", " ").toUpperCase();
  if (!plain.startsWith("AMO1:")) return { finding: "other" };
  const lines = plain.slice(5).split(/[^\S ]+/);
  let first = null;
  for (const code of new Set([lines.join(""), lines.join(" ")])) {
    let found;
    try {
      found = await read(base45(code));
    } catch (error) {
      if (!(error instanceof Cut || error instanceof TypeError)) throw error;
      found = { finding: "cut" };
    }
    if (found.finding === "genuine") return found;
    first ??= found;
  }
  return first;
}

const money = (minor) => {
  const whole = String(Math.floor(minor / 100)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return `${whole},${String(minor % 100).padStart(2, "0")}\u00a0${words.currency}`;
};
const period = (code) =>
  (words.periods[code.slice(5)] ?? code).replace("2000", code.slice(0, 4));
const instant = (seconds) =>
  new Date(seconds * 1000).toLocaleString("fr-FR", {
    timeZone: "Africa/Casablanca", dateStyle: "short", timeStyle: "short",
  });

const day = (seconds) =>
  new Date(seconds * 1000).toLocaleDateString("fr-FR", {
    timeZone: "Africa/Casablanca", dateStyle: "short",
  });

function fill(shown) {
  for (const [name, text] of Object.entries(shown)) {
    box.querySelector(`[data-claim=${name}]`).textContent = text;
  }
}

function show({ finding, claims, key }) {
  hush();
  if (finding === "genuine" && claims.has(-70006)) {
    fill({
      attestation: claims.get(-70001),
      made: day(claims.get(6)),
      until: day(claims.get(4) - 1),
      last: period(claims.get(-70004)),
    });
    say("attestation");
    say("attested");
    say("retired", Boolean(key.until) && claims.get(6) * 1000 > Date.parse(key.until));
    return;
  }
  say(finding);
  if (finding !== "genuine") return;
  const paid = claims.get(6);
  fill({
    number: claims.get(-70001),
    reference: claims.get(-70002).replace(/(\d{4})(?=\d)/g, "$1\u00a0"),
    amount: money(claims.get(-70003)),
    period: period(claims.get(-70004)),
    channel: words.channels[claims.get(-70005)] ?? "–",
    paid: instant(paid),
  });
  say("retired", Boolean(key.until) && paid * 1000 > Date.parse(key.until));
  say("claims");
  say("online");
}

async function able() {
  try {
    const known = fromBase64Url("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    await crypto.subtle.importKey("raw", known, "Ed25519", false, ["verify"]);
    return true;
  } catch {
    return false;
  }
}

box.hidden = false;
say("old", Date.now() - Date.parse(box.dataset.made) > box.dataset.days * DAY);
able().then((yes) => {
  say("unable", !yes);
  if (!yes) {
    box.querySelector("form").hidden = true;
    return;
  }
  box.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    show(await verdict(document.getElementById("code").value));
    document.getElementById("answer").focus();
  });
});
