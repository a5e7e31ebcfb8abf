import { digestOf } from '../../src/oci/digest.ts';
import { pieceSourceSuite } from '../contract/piece-source-suite.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { type Act, ScriptedSource } from '../fakes/scripted-source.ts';

const ACTS = { whole: 'serve', missing: 'missing', busy: 'busy', silent: 'silent' } as const;

pieceSourceSuite('the scripted source', (state, bytes) => {
  const act: Act = ACTS[state];
  const script = { latency_ms: 0, act: () => act, list: act };
  const source = new ScriptedSource(
    { clock: new FakeClock() },
    { digest: digestOf(bytes), bytes },
    script,
  );
  return Promise.resolve({ source, [Symbol.asyncDispose]: () => Promise.resolve() });
});
