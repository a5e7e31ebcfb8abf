import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { promisify } from 'node:util';
import protobuf from 'protobufjs';
import { PROTO_DIRECTORY } from '../../src/rpc/proto.ts';
import { GO_MODULE, goMissing } from '../contentsuite/go.ts';

const require = createRequire(import.meta.url);

const FILE = 'containerd/services/content/v1/content.proto';
const PACKAGE = 'containerd.services.content.v1';

test("our text of the content API says what containerd's own descriptor says", {
  skip: goMissing(),
}, async () => {
  const run = promisify(execFile);
  const { stdout } = await run('go', ['run', './descriptors'], {
    cwd: GO_MODULE,
    timeout: 300_000,
  });
  const theirs = linesOfDescriptor(JSON.parse(stdout) as FileDescriptor);
  assert.deepEqual(linesOfText(), theirs);
  assert.ok(theirs.length > 70, `only ${theirs.length} facts were compared`);
});

type FieldDescriptor = {
  name: string;
  number: number;
  label: string;
  type: string;
  typeName?: string;
};
type MessageDescriptor = {
  name: string;
  field?: FieldDescriptor[];
  nestedType?: MessageDescriptor[];
  enumType?: unknown[];
  oneofDecl?: unknown[];
  options?: { mapEntry?: boolean };
};
type FileDescriptor = {
  package: string;
  syntax: string;
  messageType: MessageDescriptor[];
  enumType: { name: string; value: { name: string; number?: number }[] }[];
  service: {
    name: string;
    method: {
      name: string;
      inputType: string;
      outputType: string;
      clientStreaming?: boolean;
      serverStreaming?: boolean;
    }[];
  }[];
};

/** Every fact of the descriptor as one line. */
function linesOfDescriptor(file: FileDescriptor): string[] {
  const lines = [`package ${file.package}`, `syntax ${file.syntax}`];
  for (const message of file.messageType) {
    lines.push(`message ${message.name}`);
    assert.deepEqual([message.enumType ?? [], message.oneofDecl ?? []], [[], []]);
    for (const field of message.field ?? []) {
      lines.push(`${message.name}.${field.name} = ${field.number} ${typeOf(field, message)}`);
    }
  }
  for (const { name, value } of file.enumType) {
    for (const v of value) lines.push(`enum ${name}.${v.name} = ${v.number ?? 0}`);
  }
  for (const { name, method } of file.service) {
    for (const m of method) {
      const [from, to] = [m.clientStreaming ?? false, m.serverStreaming ?? false];
      lines.push(methodLine(name, m.name, [m.inputType, from], [m.outputType, to]));
    }
  }
  return lines.sort();
}

function typeOf(field: FieldDescriptor, message: MessageDescriptor): string {
  const entry = message.nestedType?.find(
    (nested) => field.typeName?.endsWith(`.${message.name}.${nested.name}`) === true,
  );
  if (entry !== undefined) {
    assert.equal(entry.options?.mapEntry, true);
    const [key, value] = entry.field ?? [];
    assert.ok(key && value && key.number === 1 && value.number === 2);
    return `map<${typeOf(key, entry)}, ${typeOf(value, entry)}>`;
  }
  const repeated = field.label === 'LABEL_REPEATED' ? 'repeated ' : '';
  return repeated + (field.typeName ?? field.type.replace('TYPE_', '').toLowerCase());
}

/** The same lines from our proto text, as protobufjs understands it. */
function linesOfText(): string[] {
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) => {
    const bundled = target.startsWith('google/protobuf/');
    return bundled ? require.resolve(`protobufjs/${target}`) : `${PROTO_DIRECTORY}${target}`;
  };
  root.loadSync(FILE, { keepCase: true }).resolveAll();
  const lines = [`package ${PACKAGE}`, 'syntax proto3'];
  for (const item of (root.lookup(PACKAGE) as protobuf.Namespace).nestedArray) {
    if (item instanceof protobuf.Type) lines.push(...linesOfMessage(item));
    else if (item instanceof protobuf.Enum) {
      for (const [name, n] of Object.entries(item.values))
        lines.push(`enum ${item.name}.${name} = ${n}`);
    } else if (item instanceof protobuf.Service) {
      for (const m of item.methodsArray) {
        const [input, output] = [m.resolvedRequestType!.fullName, m.resolvedResponseType!.fullName];
        const from: Side = [input, m.requestStream ?? false];
        lines.push(methodLine(item.name, m.name, from, [output, m.responseStream ?? false]));
      }
    }
  }
  return lines.sort();
}

function linesOfMessage(message: protobuf.Type): string[] {
  assert.deepEqual([message.nestedArray, message.oneofsArray], [[], []]);
  const fields = message.fieldsArray.map((field) => {
    const type = field.resolvedType?.fullName ?? field.type;
    const whole =
      field instanceof protobuf.MapField ? `map<${field.keyType}, ${type}>` : repeated(field, type);
    return `${message.name}.${field.name} = ${field.id} ${whole}`;
  });
  return [`message ${message.name}`, ...fields];
}

function repeated(field: protobuf.FieldBase, type: string): string {
  return field.repeated ? `repeated ${type}` : type;
}

type Side = readonly [type: string, stream: boolean];

function methodLine(service: string, name: string, ...sides: readonly Side[]): string {
  const [from, to] = sides.map(([type, stream]) => (stream ? `stream ${type}` : type));
  return `rpc ${service}.${name}(${from}) returns (${to})`;
}
