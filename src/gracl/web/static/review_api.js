// Talks to the server. The page remembers the version of what it shows and decides by it alone: a
// decision by an older version is refused (412), and nothing is done.

export class Refused extends Error {
  constructor(words, status, mayOverrule = false) {
    super(words);
    Object.assign(this, { status, mayOverrule });
  }
  get isStale() {
    return this.status === 412;
  }
}

const shown = { version: null };
export const version = () => shown.version;
export const show = (version) => { shown.version = version; };

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Refused("the server does not answer. Start it again with the same command; every decision that "
      + "was told as done is kept", 0);
  }
  const found = await response.json().catch(() => ({}));
  if (response.status === 401) {
    throw new Refused("the server was started anew since, and knows this page no longer. Open the address that it "
      + "printed; every decision is kept", 401);
  }
  if (!response.ok) throw new Refused(found.error || `the server answered ${response.status}`, response.status, found.overrule);
  return found;
}

export const get = (path) => answer(fetch(path));

export const post = (path, body) => answer(fetch(path, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
}));

/** Decides by the version that is shown. */
export const decide = (kind, body = {}) => post(`/api/${kind}`, { ...body, version: shown.version });

export function upload(file) {
  const form = new FormData();
  form.append("image", file, file.name || "pasted picture");
  return answer(fetch("/api/search", { method: "POST", body: form }));
}
