import { hasCode } from '../../base/errors.ts';
import { PROXY_NAME } from '../containerd-config.ts';
import { parsePlugins } from './containerd-plugins.ts';
import type { ContainerdProbe } from './containerd-process.ts';
import type { Check, DoctorContext } from './context.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';
import {
  type ImageRow,
  ImageWalk,
  NO_RECORD,
  parseImages,
  type WalkedImage,
} from './image-walk.ts';
import { mapBounded } from './map-bounded.ts';
import { quoted } from './shell.ts';

/** Namespaces and images looked at; what is beyond is counted. */
const NAMESPACES_MAX = 32;
const IMAGES_MAX = 1_000;
/** Time for the walk, in ms; then what is left is counted. */
const WALK_BUDGET_MS = 30_000;
/** Longest one listing of containerd may take, in ms. */
const LIST_DEADLINE_MS = 15_000;
const AT_ONCE = 4;
/** Images named one by one; the others are counted. */
const NAMED_MAX = 20;

export type ImagesFacts =
  | { readonly kind: 'no-containerd' }
  | { readonly kind: 'no-list'; readonly why: string }
  /** Its content comes from us and we do not answer. */
  | { readonly kind: 'no-daemon' }
  | {
      readonly kind: 'looked';
      /** False: containerd uses another content store, and only its own verdict counts. */
      readonly is_wired: boolean;
      readonly images_total: number;
      readonly blobs: number;
      readonly images: readonly WalkedImage[];
    };

type Space = { readonly rows: readonly ImageRow[]; readonly known: ReadonlySet<string> };

/** Can every blob of every image that containerd knows be read? */
export const imagesCheck: Check<ImagesFacts> = {
  deadline_ms: 90_000,
  gather: async (context, signal) => {
    const probe = await context.containerd();
    if (probe.kind === 'absent') return { kind: 'no-containerd' };
    const ctr = asker(context, probe, signal);
    let spaces: readonly Space[];
    let is_wired: boolean;
    try {
      const plugins = parsePlugins(await ctr('plugins', 'ls'));
      is_wired = plugins.some(
        (p) => p.type === 'io.containerd.content.v1' && p.id === PROXY_NAME && p.status === 'ok',
      );
      // containerd would hang with the daemon while it lists.
      if (is_wired && (await context.daemon()).kind !== 'answers') return { kind: 'no-daemon' };
      spaces = await listSpaces(ctr);
    } catch (error) {
      if (signal.aborted) throw error;
      return { kind: 'no-list', why: error instanceof Error ? error.message : String(error) };
    }
    return is_wired ? walkSpaces(context, spaces, signal) : believe(spaces);
  },
  judge: judgeImages,
};

/** Asks containerd by its own client; rejects when it does not answer. */
type Ctr = (...args: string[]) => Promise<string>;

/** `images check` ends with 1 when an image cannot be read, and lists it all the same. */
export function asker(
  { run }: DoctorContext,
  probe: Extract<ContainerdProbe, { kind: 'runs' }>,
  signal: AbortSignal,
): Ctr {
  return async (...args) => {
    const limits = { signal, deadline_ms: LIST_DEADLINE_MS };
    const result = await run([probe.ctr, '--address', probe.address, ...args], limits);
    if (result.code === 0 || result.stdout !== '') return result.stdout;
    throw new Error(result.stderr.trim().split('\n').at(-1)?.slice(0, 300) ?? 'no answer');
  };
}

async function listSpaces(ctr: Ctr): Promise<Space[]> {
  const names = lines(await ctr('namespaces', 'ls', '-q')).slice(0, NAMESPACES_MAX);
  return mapBounded(names, 2, async (namespace) => {
    const rows = parseImages(await ctr('-n', namespace, 'images', 'check'), namespace);
    const known = new Set(lines(await ctr('-n', namespace, 'content', 'ls', '-q')));
    return { rows, known };
  });
}

/** Digests of every blob that containerd has a record of, in any namespace. */
export async function knownBlobs(ctr: Ctr): Promise<ReadonlySet<string>> {
  const known = new Set<string>();
  for (const namespace of lines(await ctr('namespaces', 'ls', '-q')).slice(0, NAMESPACES_MAX)) {
    for (const digest of lines(await ctr('-n', namespace, 'content', 'ls', '-q')))
      known.add(digest);
  }
  return known;
}

/** Without our store in between there is containerd's own verdict. */
function believe(spaces: readonly Space[]): ImagesFacts {
  const rows = spaces.flatMap((space) => space.rows);
  const images = rows.map((row) => ({ ...row, problems: [], discarded: 0, is_foreign: false }));
  return { kind: 'looked', is_wired: false, images_total: rows.length, blobs: 0, images };
}

async function walkSpaces(
  context: DoctorContext,
  spaces: readonly Space[],
  signal: AbortSignal,
): Promise<ImagesFacts> {
  const todo = spaces.flatMap(({ rows, known }) => rows.map((row) => ({ row, known })));
  const { clock, config } = context;
  using door = await context.openBlobDoor(config.config.content.socket_path);
  const walk = new ImageWalk({ door }, config.config.store);
  const end_ms = clock.now_ms() + WALK_BUDGET_MS;
  const walked = await mapBounded(todo.slice(0, IMAGES_MAX), AT_ONCE, async ({ row, known }) => {
    if (clock.now_ms() > end_ms) return undefined;
    try {
      return await walk.walk(row, known, signal);
    } catch (error) {
      // Manifests that vanish between two looks: somebody removes the image right now.
      if (!hasCode(error, 'not_found')) throw error;
      return undefined;
    }
  });
  const images = walked.filter((image) => image !== undefined);
  return {
    kind: 'looked',
    is_wired: true,
    images_total: todo.length,
    blobs: walk.blobs,
    images,
  };
}

export function judgeImages(facts: ImagesFacts): Finding {
  switch (facts.kind) {
    case 'no-containerd': {
      const text = 'no containerd runs here, so no image could be looked at';
      return findingOf('images', '', [remark('note', text)], {});
    }
    case 'no-list': {
      const text = `containerd does not list its images: ${facts.why}`;
      const mend = ['layerswarm doctor --only wiring,socket', 'journalctl -u containerd -n 50'];
      return findingOf('images', '', [remark('fail', text, ...mend)], { why: facts.why });
    }
    case 'no-daemon': {
      const text =
        'no image can be read: containerd takes them from the daemon, and it does not answer';
      const mend = 'systemctl restart layerswarm.service';
      return findingOf('images', '', [remark('fail', text, mend)], {});
    }
    case 'looked':
      return judgeLooked(facts);
  }
}

function judgeLooked(facts: Extract<ImagesFacts, { kind: 'looked' }>): Finding {
  const { images, images_total, blobs, is_wired } = facts;
  const broken = images.filter((image) => image.problems.length > 0 || isUnexplained(image));
  const remarks = broken.slice(0, NAMED_MAX).map((image) => brokenRemark(image));
  if (broken.length > NAMED_MAX) {
    remarks.push(remark('fail', `${broken.length - NAMED_MAX} further images cannot be read`));
  }
  const discarded = images.reduce((sum, image) => sum + image.discarded, 0);
  if (discarded > 0) {
    const text = `${discarded} layers are not kept by containerd, as with discard_unpacked_layers: containers run from the unpacked ones, and peers get these layers only while they are in the cache`;
    remarks.push(
      remark('note', text, 'to share them: discard_unpacked_layers = false in containerd'),
    );
  }
  if (images.length < images_total) {
    const text = `${images.length} of ${images_total} images were looked at, within ${WALK_BUDGET_MS / 1000} s and ${IMAGES_MAX} images`;
    remarks.push(remark('note', text));
  }
  if (!is_wired) {
    const text = 'containerd does not use layerswarm, so only its own verdict was taken';
    remarks.push(remark('note', text, 'layerswarm doctor --only wiring'));
  }
  const fine = `every image can be read (images: ${images.length}, blobs: ${blobs})`;
  return findingOf('images', fine, remarks, {
    images_total,
    images_checked: images.length,
    blobs_checked: blobs,
    layers_not_kept: discarded,
    broken: broken.slice(0, NAMED_MAX).map((image) => ({
      namespace: image.namespace,
      name: image.name,
      digest: image.target,
      containerd_says: image.status,
      problems: image.problems.map((p) => ({ ...p })),
    })),
  });
}

/** containerd cannot read it, and nothing that we saw says why. */
function isUnexplained({ status, problems, discarded, is_foreign }: WalkedImage): boolean {
  return !status.startsWith('complete') && problems.length === 0 && discarded === 0 && !is_foreign;
}

function brokenRemark(image: WalkedImage): Remark {
  const { namespace, name, problems, status } = image;
  const [first, ...rest] = problems;
  const more = rest.length === 0 ? '' : ` (and ${rest.length} more)`;
  const what =
    first === undefined
      ? `containerd says "${status}"`
      : `${first.role} ${first.digest}: ${first.problem}${more}`;
  const text = `image ${name} (namespace ${namespace}) cannot be read: ${what}`;
  // What containerd has no record of it fetches by itself; of the rest it has to forget the record first.
  const known = problems.filter(({ problem }) => problem !== NO_RECORD).map(({ digest }) => digest);
  const repair =
    known.length === 0 ? [] : [`layerswarm repair ${known.slice(0, NAMED_MAX).join(' ')}`];
  const pull =
    namespace === 'k8s.io'
      ? `crictl pull ${quoted(name)}`
      : `ctr -n ${quoted(namespace)} images pull ${quoted(name)}`;
  return remark('fail', text, ...repair, pull);
}

function lines(output: string): string[] {
  return output.split('\n').filter((line) => line !== '');
}
