{{/* The Secrets that a node reads, as files that it alone may read, under /etc/tollgate. */}}

{{- define "tollgate.secrets" -}}
{{- with .Values.admin.existingSecret }}
- { volume: admin-token, dir: admin, secret: {{ . | quote }}, items: [{ key: {{ $.Values.admin.key | quote }}, path: token }] }
{{- end }}
{{- with .Values.signIn }}
{{- if .existingSecret }}
- volume: sign-in
  dir: sign-in
  secret: {{ .existingSecret | quote }}
  items:
    - { key: {{ .key | quote }}, path: client-secret }
    {{- with .caKey }}
    - { key: {{ . | quote }}, path: ca.crt }
    {{- end }}
{{- end }}
{{- end }}
{{- with .Values.otlp }}
{{- if .existingSecret }}
- volume: otlp
  dir: otlp
  secret: {{ .existingSecret | quote }}
  items:
    {{- with .headersKey }}
    - { key: {{ . | quote }}, path: headers }
    {{- end }}
    {{- with .caKey }}
    - { key: {{ . | quote }}, path: ca.crt }
    {{- end }}
{{- end }}
{{- end }}
{{- range $listener := list "peers" "admin" "data" }}
{{- if include "tollgate.tls.on" (list $ $listener) }}
- { volume: tls-{{ $listener }}, dir: tls/{{ $listener }}, secret: {{ include "tollgate.tls.secret" (list $ $listener) | quote }} }
{{- end }}
{{- end }}
{{- $ca := "items: [{ key: ca.crt, path: ca.crt }]" }}
{{- $pair := "items: [{ key: tls.crt, path: tls.crt }, { key: tls.key, path: tls.key }]" }}
{{- with .Values.tls }}
{{- with .data.clientCaSecret }}
- { volume: tls-clients, dir: tls/clients, secret: {{ . | quote }}, {{ $ca }} }
{{- end }}
{{- range $index, $secret := .data.extraSecrets }}
- { volume: tls-sni-{{ $index }}, dir: tls/sni/{{ $secret }}, secret: {{ $secret | quote }}, {{ $pair }} }
{{- end }}
{{- with .admin.clientCaSecret }}
- { volume: tls-admins, dir: tls/admins, secret: {{ . | quote }}, {{ $ca }} }
{{- end }}
{{- with .upstream.caSecret }}
- { volume: tls-upstream-ca, dir: tls/upstream-ca, secret: {{ . | quote }}, {{ $ca }} }
{{- end }}
{{- with .upstream.clientSecret }}
- { volume: tls-upstream, dir: tls/upstream, secret: {{ . | quote }}, {{ $pair }} }
{{- end }}
{{- end }}
{{- end -}}

{{/* Whole directories: a file mounted by subPath would never change under a running pod. */}}
{{- define "tollgate.secrets.mounts" -}}
{{- range include "tollgate.secrets" . | fromYamlArray }}
- { name: {{ .volume }}, mountPath: /etc/tollgate/{{ .dir }}, readOnly: true }
{{- end }}
{{- end -}}

{{- define "tollgate.secrets.volumes" -}}
{{- range include "tollgate.secrets" . | fromYamlArray }}
- name: {{ .volume }}
  secret:
    secretName: {{ .secret | quote }}
    defaultMode: 0440
    {{- with .items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- end -}}
