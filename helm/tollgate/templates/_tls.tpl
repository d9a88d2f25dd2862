{{/* Which listener has a certificate, in which Secret, and how the node is told. */}}

{{/* "tls": the listener (peers, admin, data) has one; empty: it has none. Call with (list $ "peers"). */}}
{{- define "tollgate.tls.on" -}}
{{- $tls := (index . 0).Values.tls -}}
{{- if eq (index . 1) "data" -}}
{{- if $tls.data.enabled -}}tls{{- end -}}
{{- else if ne $tls.mode "insecure" -}}tls{{- end -}}
{{- end -}}

{{/* "issued": cert-manager makes this listener's certificate. */}}
{{- define "tollgate.tls.issued" -}}
{{- $tls := (index . 0).Values.tls -}}
{{- if and (include "tollgate.tls.on" .) (ne $tls.mode "existingSecrets") (not (index $tls (index . 1)).existingSecret) -}}issued{{- end -}}
{{- end -}}

{{- define "tollgate.tls.secret" -}}
{{- $root := index . 0 -}}{{- $listener := index . 1 -}}
{{- if include "tollgate.tls.issued" . -}}
{{- printf "%s-%s-tls" (include "tollgate.fullname" $root) $listener -}}
{{- else -}}
{{- required (printf "tls.mode is existingSecrets: name in tls.%s.existingSecret the Secret with tls.crt, tls.key and ca.crt" $listener) (index $root.Values.tls $listener).existingSecret -}}
{{- end -}}
{{- end -}}

{{/* What would be given and not used: nobody shall take plain text for TLS. */}}
{{- define "tollgate.tls.check" -}}
{{- $tls := .Values.tls -}}
{{- if eq $tls.mode "insecure" -}}
{{- range $name, $given := dict "peers.existingSecret" $tls.peers.existingSecret "admin.existingSecret" $tls.admin.existingSecret "admin.clientCaSecret" $tls.admin.clientCaSecret -}}
{{- if $given -}}
{{- fail (printf "tls.%s is given, and tls.mode insecure leaves peers and the admin API without TLS: set tls.mode to existingSecrets or certManager, or take it out" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $tls.data.enabled -}}
{{- range $name, $given := dict "existingSecret" $tls.data.existingSecret "clientCaSecret" $tls.data.clientCaSecret "extraSecrets" $tls.data.extraSecrets -}}
{{- if $given -}}
{{- fail (printf "tls.data.%s is given, and the data plane speaks plain text: set tls.data.enabled to true, or take it out" $name) -}}
{{- end -}}
{{- end -}}
{{- else if and (include "tollgate.tls.issued" (list . "data")) (not $tls.data.names) -}}
{{- fail "tls.data.enabled: name in tls.data.existingSecret a Secret with tls.crt and tls.key, or in tls.data.names what clients call, for cert-manager's certificate" -}}
{{- end -}}
{{- end -}}

{{/* Environment of a node. */}}
{{- define "tollgate.tls.env" -}}
{{- include "tollgate.tls.check" . -}}
{{- $dir := "/etc/tollgate/tls" -}}
{{- if include "tollgate.tls.on" (list . "peers") }}
- { name: TOLLGATE_PEER_TLS_CERT, value: {{ $dir }}/peers/tls.crt }
- { name: TOLLGATE_PEER_TLS_KEY, value: {{ $dir }}/peers/tls.key }
- { name: TOLLGATE_PEER_TLS_CA, value: {{ $dir }}/peers/ca.crt }
{{- end }}
{{- if include "tollgate.tls.on" (list . "admin") }}
- { name: TOLLGATE_ADMIN_TLS_CERT, value: {{ $dir }}/admin/tls.crt }
- { name: TOLLGATE_ADMIN_TLS_KEY, value: {{ $dir }}/admin/tls.key }
{{- if .Values.tls.admin.clientCaSecret }}
- { name: TOLLGATE_ADMIN_TLS_CLIENT_CA, value: {{ $dir }}/admins/ca.crt }
# The kubelet's probes have none to show.
- { name: TOLLGATE_ADMIN_TLS_CLIENT_AUTH, value: optional }
{{- end }}
{{- end }}
{{- if include "tollgate.tls.on" (list . "data") }}
{{- $certs := list (printf "%s/data/tls.crt" $dir) }}
{{- $keys := list (printf "%s/data/tls.key" $dir) }}
{{- range .Values.tls.data.extraSecrets }}
{{- $certs = append $certs (printf "%s/sni/%s/tls.crt" $dir .) }}
{{- $keys = append $keys (printf "%s/sni/%s/tls.key" $dir .) }}
{{- end }}
- { name: TOLLGATE_DATA_TLS_CERT, value: {{ join "," $certs | quote }} }
- { name: TOLLGATE_DATA_TLS_KEY, value: {{ join "," $keys | quote }} }
{{- if .Values.tls.data.clientCaSecret }}
- { name: TOLLGATE_DATA_TLS_CLIENT_CA, value: {{ $dir }}/clients/ca.crt }
- { name: TOLLGATE_DATA_TLS_CLIENT_AUTH, value: {{ .Values.tls.data.clientAuth }} }
{{- end }}
{{- end }}
{{- if .Values.tls.upstream.caSecret }}
- { name: TOLLGATE_UPSTREAM_CA, value: {{ $dir }}/upstream-ca/ca.crt }
{{- end }}
{{- if .Values.tls.upstream.clientSecret }}
- { name: TOLLGATE_UPSTREAM_TLS_CERT, value: {{ $dir }}/upstream/tls.crt }
- { name: TOLLGATE_UPSTREAM_TLS_KEY, value: {{ $dir }}/upstream/tls.key }
{{- end }}
{{- if eq .Values.tls.mode "insecure" }}
- { name: TOLLGATE_INSECURE, value: "true" }
{{- end }}
{{- end -}}

{{- define "tollgate.adminScheme" -}}
{{- if include "tollgate.tls.on" (list . "admin") -}}HTTPS{{- else -}}HTTP{{- end -}}
{{- end -}}
