# SPDX-License-Identifier: LGPL-2.1-or-later
"""As much of JSON Schema as doc/info.schema.json uses."""
import json
import os

PATH = os.path.join(os.path.dirname(os.path.realpath(__file__)), '..', '..', 'doc', 'info.schema.json')
TYPES = {'object': dict, 'array': list, 'string': str, 'integer': int, 'boolean': bool}
KNOWN = {'$schema', 'title', 'description', 'type', 'enum', 'minimum', 'required', 'properties', 'additionalProperties', 'items'}


def faults(value, schema=None, place='$'):
    """What is wrong with the value, as a list of texts."""
    if schema is None:
        with open(PATH, encoding='utf-8') as file:
            schema = json.load(file)
    out = ['%s: the schema has %s' % (place, key) for key in schema if key not in KNOWN]
    wanted = TYPES.get(schema.get('type'), object)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        return out + ['%s: %r is no %s' % (place, value, schema['type'])]
    if 'enum' in schema and value not in schema['enum']:
        out.append('%s: %r is none of %r' % (place, value, schema['enum']))
    if 'minimum' in schema and value < schema['minimum']:
        out.append('%s: %r is less than %r' % (place, value, schema['minimum']))
    if isinstance(value, list) and 'items' in schema:
        for number, item in enumerate(value):
            out += faults(item, schema['items'], '%s[%d]' % (place, number))
    if isinstance(value, dict):
        out += ['%s: no %s' % (place, name) for name in schema.get('required', ()) if name not in value]
        for name, member in value.items():
            if name in schema.get('properties', ()):
                out += faults(member, schema['properties'][name], place + '.' + name)
            elif schema.get('additionalProperties') is False:
                out.append('%s: %s is unknown' % (place, name))
    return out
