// What the page knows: all clusters in short, which of them are listed in which order, which are marked.

const ORDERS = {
  doubt: (a, b) => b.doubt - a.doubt || b.size - a.size,
  size: (a, b) => b.size - a.size,
  small: (a, b) => a.size - b.size,
  name: (a, b) => (a.name == null) - (b.name == null) || (a.name ?? "").localeCompare(b.name ?? "", "en", { numeric: true }),
  number: (a, b) => a.number - b.number,
};
const SHOWS = {
  all: () => true,
  open: (cluster) => !cluster.confirmed,
  confirmed: (cluster) => cluster.confirmed,
  changed: (cluster) => cluster.changed,
  named: (cluster) => cluster.name != null,
};
export const NONE = -1; // the number of what is in no cluster

export const titleOf = (cluster) => cluster.name ?? `Cluster ${cluster.number}`;

const read = ([number, size, doubt, name, confirmed, changed, rows]) => (
  { number, size, doubt, name, confirmed: !!confirmed, changed: !!changed, rows });

export class Store {
  constructor() {
    this.clusters = new Map();
    this.order = []; // numbers, as listed
    this.marked = new Set();
    this.filter = { text: "", sort: "doubt", show: "all", found: new Set() };
    this.standing = { outliers: 0, progress: null };
  }

  /** All of it, as a server tells it when the page opens. */
  open(answer) {
    this.clusters = new Map(answer.clusters.map((one) => [one[0], read(one)]));
    this.standing = answer;
    this.forget();
    this.sort();
  }

  /** What a decision changed. The order stays, so that nothing jumps away under one's eyes. */
  take(answer, chosen) {
    const fresh = [];
    for (const number of answer.gone) this.clusters.delete(number);
    for (const one of answer.clusters) {
      if (!this.clusters.has(one[0])) fresh.push(one[0]);
      this.clusters.set(one[0], read(one));
    }
    this.standing = answer;
    this.forget();
    this.order = this.order.filter((n) => this.clusters.has(n) && (n === chosen || this.matches(n)));
    const place = this.order.indexOf(chosen) + 1;
    this.order.splice(place, 0, ...fresh.filter((n) => this.matches(n)));
  }

  forget() {
    for (const number of this.marked) if (!this.clusters.has(number)) this.marked.delete(number);
  }

  sort() {
    const compare = ORDERS[this.filter.sort];
    const meant = this.filter.text ? Number(this.filter.text) : NaN; // its own number stands first
    this.order = [...this.clusters.values()].filter((cluster) => this.matches(cluster.number))
      .sort((a, b) => (b.number === meant) - (a.number === meant) || compare(a, b) || a.number - b.number)
      .map((cluster) => cluster.number);
  }

  matches(number) {
    const cluster = this.clusters.get(number);
    if (!SHOWS[this.filter.show](cluster)) return false;
    return !this.filter.text || this.isCalled(cluster, this.filter.text) || this.filter.found.has(number);
  }

  isCalled(cluster, text) {
    const wanted = text.toLowerCase();
    const numbered = `cluster ${cluster.number}`; // which is said of those with a name, too
    return [String(cluster.number), numbered].includes(wanted) || titleOf(cluster).toLowerCase().includes(wanted);
  }

  /** Whoever comes next in the list, or before; null at its end. What no filter asks for any more is passed over. */
  beside(number, step) {
    const at = this.order.indexOf(number);
    if (at < 0) return this.order[0] ?? null;
    let next = at + step;
    while (next in this.order && !this.matches(this.order[next])) next += step;
    return this.order[next] ?? null;
  }

  title(number) {
    return number === NONE ? "No cluster" : titleOf(this.clusters.get(number) ?? { number });
  }
}
