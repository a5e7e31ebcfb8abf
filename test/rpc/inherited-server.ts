/** Serves the echo service on file descriptor 3 until SIGTERM, then drains: what systemd's socket activation starts. */
import { listen } from '../../src/rpc/listen.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { MemoryRegister } from '../fakes/memory-register.ts';
import { EchoService } from './echo-service.ts';

const listening = await listen(
  {
    table: new EchoService().table(),
    logger: new MemoryLogger(),
    register: new MemoryRegister(),
    server: process.argv[3] === 'grpc-js' ? 'grpc-js' : 'h2',
  },
  { socket_path: String(process.argv[2]), socket_fd: 3 },
);
process.once('SIGTERM', () => {
  void listening.drain(5000).then(() => process.exit(0));
});
process.stdout.write('serving\n');
