// Pushes a built image to a plain-HTTP registry: `push-image.ts <host:port> <repository> <tag> <image dir>`.
// A program of its own, since only a process on a lab host reaches a lab registry.
import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import type { OutgoingHttpHeaders } from 'node:http';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { pathToFileURL } from 'node:url';
import { blobPath } from '../../fixtures/image.ts';
import type { TestImage } from '../../fixtures/image.ts';
import type { Descriptor } from '../../fixtures/layer.ts';

interface Answer {
  readonly status: number;
  readonly location: string;
}

const agent = new Agent({ keepAlive: true });

/** Uploads the blobs the registry lacks, then the manifest under its digest, then the target under `tag`. */
export async function pushImage(
  registry: string,
  repository: string,
  tag: string,
  image: TestImage,
): Promise<void> {
  const base = `http://${registry}/v2/${repository}`;
  for (const blob of [image.config, ...image.layers]) {
    const head = await send('HEAD', `${base}/blobs/${blob.digest}`);
    if (head.status === 200) continue;
    const start = expect(await send('POST', `${base}/blobs/uploads/`), 202, 'start of upload');
    const url = new URL(start.location, base);
    url.searchParams.set('digest', blob.digest);
    const type = 'application/octet-stream';
    const put = await send('PUT', url.href, { type, file: blobPath(image, blob.digest), blob });
    expect(put, 201, `upload of ${blob.digest}`);
  }
  const put = async (reference: string, of: Descriptor) => {
    const body = { type: of.mediaType, file: blobPath(image, of.digest), blob: of };
    expect(await send('PUT', `${base}/manifests/${reference}`, body), 201, `manifest ${reference}`);
  };
  await put(image.manifest.digest, image.manifest);
  await put(tag, image.target);
}

async function send(
  method: string,
  url: string,
  body?: { readonly type: string; readonly file: string; readonly blob: Descriptor },
): Promise<Answer> {
  const headers: OutgoingHttpHeaders =
    body === undefined
      ? { 'content-length': 0 }
      : { 'content-type': body.type, 'content-length': body.blob.size };
  const call = request(url, { method, headers, agent, timeout: 60_000 });
  const answer = Promise.withResolvers<Answer>();
  call.once('timeout', () => call.destroy(new Error(`${method} ${url}: no answer in 60 s`)));
  call.once('error', answer.reject);
  call.once('response', (response) => {
    response.resume();
    const { statusCode: status = 0, headers: given } = response;
    response.once('end', () => answer.resolve({ status, location: given.location ?? '' }));
  });
  if (body === undefined) call.end();
  else await pipeline(createReadStream(body.file, { highWaterMark: 1024 * 1024 }), call);
  return answer.promise;
}

function expect(answer: Answer, status: number, what: string): Answer {
  if (answer.status === status) return answer;
  throw new Error(`${what}: the registry answers ${answer.status}, not ${status}`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [registry, repository, tag, dir] = process.argv.slice(2);
  if (dir === undefined) throw new Error('usage: push-image.ts host:port repository tag dir');
  const image = JSON.parse(await readFile(join(dir, 'image.json'), 'utf8')) as TestImage;
  await pushImage(registry!, repository!, tag!, { ...image, dir });
  agent.destroy();
}
