import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './run-program.ts';

/** What both packages say about themselves. */
export type Release = {
  readonly version: string;
  /** Of the package, not of the program. */
  readonly revision: string;
  /** Every time in a package, in seconds since 1970: the same input gives the same bytes. */
  readonly epoch_s: number;
};

export const SUMMARY = 'image layers for containerd from the other hosts';
export const MAINTAINER = 'layerswarm maintainers <layerswarm@packages.example.org>';
/** Paragraphs, without a trailing newline. */
export const DESCRIPTION = [
  'layerswarm sits beside containerd. When containerd pulls an image, the layers come in pieces from the other hosts that already hold them, over QUIC and in parallel; every byte is verified, and whatever no other host delivers comes from the registry as before.',
  'nerdctl, crictl, ctr and the kubelet need no change. There is no central server. After the installation "layerswarm setup" wires containerd to it and "layerswarm teardown" takes that back.',
] as const;

/** Version of package.json unless another is given; time of SOURCE_DATE_EPOCH, else of the checkout's last commit. */
export function readRelease(
  root: string,
  given_version: string | undefined,
  environment: Readonly<Record<string, string | undefined>>,
): Release {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    version: string;
  };
  return {
    version: given_version ?? version,
    revision: '1',
    epoch_s: epoch_s(root, environment['SOURCE_DATE_EPOCH']),
  };
}

function epoch_s(root: string, given: string | undefined): number {
  const text = given ?? commitTime(root);
  const seconds = Number(text);
  if (!Number.isSafeInteger(seconds) || seconds <= 0) {
    throw new Error(`SOURCE_DATE_EPOCH: "${text}" is no number of seconds since 1970`);
  }
  return seconds;
}

function commitTime(root: string): string {
  try {
    return run(['git', '-C', root, 'log', '-1', '--format=%ct']).trim();
  } catch (cause) {
    throw new Error(
      `${root} is no git checkout (or git is missing): set SOURCE_DATE_EPOCH to the time of the release, in seconds since 1970`,
      { cause },
    );
  }
}
