// Reads a bbolt database from its bytes, as far as it takes to see which blobs containerd's metadata knows.

const PAGE_BYTES = 4096;
const PAGE_HEADER_BYTES = 16;
const ELEMENT_BYTES = 16;
const MAGIC = 0xed0c_daed;
const BRANCH = 1;

interface Item {
  readonly key: string;
  /** The content of a bucket, or undefined for a plain value. */
  readonly bucket: Buffer | undefined;
}

/**
 * `<namespace> <digest>` of every blob in containerd's database (`v1/<namespace>/content/blob/<digest>`), as its last whole transaction
 * left it; none when the file holds no such database yet.
 */
export function knownBlobs(file: Buffer): readonly string[] {
  const root = newestRoot(file);
  if (root === undefined) return [];
  const namespaces = bucketIn(file, pageOf(file, root), 'v1');
  return itemsOf(file, namespaces).flatMap(({ key: namespace, bucket }) =>
    itemsOf(file, bucketIn(file, bucketIn(file, bucket, 'content'), 'blob')).map(
      ({ key: digest }) => `${namespace} ${digest}`,
    ),
  );
}

/** Root page of the newer of the two transactions the file remembers. */
function newestRoot(file: Buffer): number | undefined {
  const metas = [0, 1].flatMap((page) => {
    const at = page * PAGE_BYTES + PAGE_HEADER_BYTES;
    if (file.length < at + PAGE_BYTES / 2 || file.readUInt32LE(at) !== MAGIC) return [];
    return [
      { root: Number(file.readBigUInt64LE(at + 16)), transaction: file.readBigUInt64LE(at + 48) },
    ];
  });
  return metas.toSorted((x, y) => Number(y.transaction - x.transaction))[0]?.root;
}

function pageOf(file: Buffer, page: number): Buffer {
  return file.subarray(page * PAGE_BYTES);
}

function bucketIn(file: Buffer, page: Buffer | undefined, name: string): Buffer | undefined {
  return itemsOf(file, page).find((item) => item.key === name)?.bucket;
}

function itemsOf(file: Buffer, page: Buffer | undefined): readonly Item[] {
  if (page === undefined) return [];
  const is_branch = (page.readUInt16LE(8) & BRANCH) !== 0;
  return Array.from({ length: page.readUInt16LE(10) }, (_, i) => {
    const at = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
    return is_branch
      ? itemsOf(file, pageOf(file, Number(page.readBigUInt64LE(at + 8))))
      : [leaf(file, page, at)];
  }).flat();
}

function leaf(file: Buffer, page: Buffer, at: number): Item {
  const is_bucket = page.readUInt32LE(at) === 1;
  const key_at = at + page.readUInt32LE(at + 4);
  const value_at = key_at + page.readUInt32LE(at + 8);
  const key = page.toString('utf8', key_at, value_at);
  if (!is_bucket) return { key, bucket: undefined };
  const root = Number(page.readBigUInt64LE(value_at));
  // A small bucket lies inside its parent's page.
  const bucket = root === 0 ? page.subarray(value_at + 16) : pageOf(file, root);
  return { key, bucket };
}
