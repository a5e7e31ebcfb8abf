// Run after the death of a process with a lab (its pid is the argument): removes what it left behind.
import { pause, sweepDeadRuns } from './residue.ts';

/** Its processes die with it, and the kernel needs a moment to take down their namespaces. */
const ROUNDS = 20;
const ROUND_MS = 250;

for (let round = 0; round < ROUNDS; round++) {
  if (await sweepDeadRuns(`ls${process.argv[2]}-`)) break;
  await pause(ROUND_MS);
}
